"""Decomposes a target into rows. Σ rows + constant + unexplained = the number that the model produced."""
