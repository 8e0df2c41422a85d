"""Stages on models that were trained: drift, during and after training, and where it comes from."""
