"""How PyTorch and Python are used: products, precision, memos, progress. It does not know caches."""
