"""Compares two runs: differences in what components write, and in how the target is read from what they write."""
