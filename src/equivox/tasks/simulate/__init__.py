"""Data with known truth, from options to files."""
