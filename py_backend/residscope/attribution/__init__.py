"""From a target to rows that add up to the number that the model has produced."""
