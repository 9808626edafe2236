"""Loaded language models whose text can be forked and rewound; see `base`."""
