"""Filtering text, without a model: what a filter replied, what it dropped, and whether it stayed true to the text."""
