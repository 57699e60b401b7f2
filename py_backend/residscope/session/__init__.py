"""Caches in the user's namespace, and whether they have changed."""
