"""The fast path: packed kernels that give the numbers of the plain modules."""
