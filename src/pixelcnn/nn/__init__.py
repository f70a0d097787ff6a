"""Networks: the causal network, and the network that embeds a view."""
