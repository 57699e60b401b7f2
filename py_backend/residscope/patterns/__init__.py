"""Attention patterns: weighted, scored, made small."""
