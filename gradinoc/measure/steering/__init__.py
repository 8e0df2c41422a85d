"""A model whose residual stream is changed, and what that does to its decisions."""
