"""Where drift comes from: first-order accounting of a run's steps, in its weights and in the residual stream."""
