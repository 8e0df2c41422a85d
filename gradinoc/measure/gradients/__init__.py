"""Gradients with respect to the residual stream, and their alignment with directions."""
