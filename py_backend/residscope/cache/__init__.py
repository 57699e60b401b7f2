"""One `ActivationCache` and its model: names, shapes, weights, norms, tokens, padding. No module here uses a target."""
