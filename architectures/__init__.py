"""The convnets, defined in PyTorch: a family is a file, a variant is a row."""
