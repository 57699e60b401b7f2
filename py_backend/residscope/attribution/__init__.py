"""Makes rows from a target. The rows sum to the number that the model produced."""
