"""Search with rewinding (RAIN): text that the model itself finds good."""
