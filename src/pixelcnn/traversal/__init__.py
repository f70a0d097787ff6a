"""The one loop that visits pixels in a causal order, and the evaluator that caches activations for it."""
