"""Finds the caches in the user's namespace, and tracks whether they change."""
