"""Results on disk: a store of them, what is in one, locks, where each came from, and how they travel."""
