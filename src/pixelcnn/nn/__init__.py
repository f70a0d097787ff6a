"""Networks: causal ones, and the embedding of a view."""
