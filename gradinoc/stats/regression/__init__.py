"""How one number goes with another: correlations, slopes over prompts, prediction, what is left at equal loss."""
