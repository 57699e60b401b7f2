"""Attention patterns of heads: they are weighted, scored and down-sampled here."""
