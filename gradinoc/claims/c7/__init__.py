"""C7: where the drift comes from, in the space of weights; no direction is needed to begin with.

Phi is what a run's steps account for of the change of the decision log-odds S under the neutral prompt: the sum of
<step, gradient of S>, with the steps that the optimiser took. It is cosine x length of the way x norm of the gradient
(C7a), and at a layer a sum over directions of the residual stream (C7b). C7c asks what could be told before training.
"""
