"""Figures of drift: what training leaves, under which prompt, at which dose, and how it goes with alignment."""
