"""Attributes many caches, one after another: `residscope.attribute_many` and its results."""
