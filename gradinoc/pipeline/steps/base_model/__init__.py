"""Stages on the frozen base model: directions, elicitation, steering, gradients and their kernel."""
