"""Pointers: attention's logits as an output."""
