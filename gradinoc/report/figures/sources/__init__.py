"""Figures of where the drift comes from: accounting, its split among factors and directions, and the kernel."""
