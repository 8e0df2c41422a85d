"""Conversations as tokens: rendering, encoding, batches."""
