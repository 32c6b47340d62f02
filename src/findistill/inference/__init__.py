"""Prediction, latency and ONNX."""
