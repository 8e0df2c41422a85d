"""Directions in the residual stream: the trait's, the layer band, and random ones without the trait."""
