"""How much of the trait a model shows: decision log-odds, scores of responses, drift."""
