"""What one `ActivationCache` and its model hold: names, shapes, weights, norms, tokens, padding. Knows no target."""
