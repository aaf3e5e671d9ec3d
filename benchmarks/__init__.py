"""Measuring: latency, parity and accuracy. Nothing here changes a model."""
