"""One LoRA run with its gradients logged."""
