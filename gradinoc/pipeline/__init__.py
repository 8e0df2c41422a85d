"""Who computes what, once: store, steps, provenance and progress."""
