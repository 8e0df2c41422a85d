"""Sequences in one row without padding: how they are packed, and forward passes on them."""
