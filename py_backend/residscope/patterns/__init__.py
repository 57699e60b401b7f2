"""Attention patterns of heads: weighting, scores and down-sampling."""
