"""The machine that a model computes on: device and precision, memory, settings of the process."""
