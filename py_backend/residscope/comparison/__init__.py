"""Compares two runs: the differences in what components write, and in how the target is read from it."""
