"""Shares of a difference: ratios of contrasts, Shapley's split, and whether several measures agree on one."""
