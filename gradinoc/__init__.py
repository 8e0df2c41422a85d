"""Does inoculation prompting work by rotating gradients away from a trait's direction? A study that answers."""
