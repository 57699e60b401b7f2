"""Causes: runs of the user's model in which something is replaced."""
