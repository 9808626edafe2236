"""Who judges an answer; see `base`."""
