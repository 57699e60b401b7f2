"""How PyTorch and Python are driven: products in any precision, what is kept, progress. Knows no cache."""
