"""Compares two runs: what components wrote differently, and how it is read differently."""
