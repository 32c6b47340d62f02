"""LightningModules, losses, callbacks and the training loop."""
