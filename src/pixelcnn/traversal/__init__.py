"""The loop that visits the pixels of an image in a causal order, and the evaluator that caches activations for it."""
