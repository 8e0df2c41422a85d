"""Simulated studies in parts: the true prompts and runs, and the tables of the frozen model and of training."""
