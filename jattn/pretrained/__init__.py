"""Weights of real models: files, tokenizers, and where the model that the tests use comes from."""
