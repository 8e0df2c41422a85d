"""Effects with intervals, clustered and paired tests, correlation, equal loss and nulls; no torch."""
