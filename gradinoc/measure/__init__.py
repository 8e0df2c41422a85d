"""From a prompt to gradients, alignments, training and drift."""
