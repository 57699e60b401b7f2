"""Caches in the user's namespace, and what has become of each."""
