"""Measuring models: the held-out bound."""
