"""Helpers for computing with PyTorch: products, precision, memos, progress. They do not depend on caches."""
