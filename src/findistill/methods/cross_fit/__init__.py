"""Predictions of labelled rows by models that have not seen them."""
