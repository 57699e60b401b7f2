"""Handles many caches, one after another: `residscope.attribute_many`, `residscope.ablate_many`, and their results."""
