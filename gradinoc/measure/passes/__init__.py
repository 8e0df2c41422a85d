"""A forward and backward pass through a model: batches, hooks on the residual stream, checks of what comes out."""
