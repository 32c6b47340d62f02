"""Training small encoders: batches, objectives, the LightningModule, and `fit` / `predict` around them."""
