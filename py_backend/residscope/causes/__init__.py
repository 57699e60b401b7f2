"""Causes: runs of the user's model in which activations are replaced."""
