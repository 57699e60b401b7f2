"""One `ActivationCache` and its model: names, shapes, weights, norms, tokens, padding. It does not know targets."""
