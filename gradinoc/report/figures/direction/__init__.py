"""Figures of the trait direction: does it separate, and is it the trait's."""
