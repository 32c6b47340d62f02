"""Weights, encoders and language models, and what is read from them."""
