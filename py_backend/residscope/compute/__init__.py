"""Helpers for computing with PyTorch: products, precision, memos, progress. They know nothing about caches."""
