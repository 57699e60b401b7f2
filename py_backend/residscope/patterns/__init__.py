"""Attention patterns: weighted, scored, down-sampled."""
