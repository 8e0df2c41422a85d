"""Engines: where the steps of a study are computed, in this process or on the workers of a cluster."""
