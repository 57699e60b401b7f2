"""From a target to rows that sum to the number that the model produced."""
