"""A model loaded for measuring: its weights, kernels and device, and the self-tests it has to pass."""
