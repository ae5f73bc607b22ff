"""Layers that mechanisms share around their cores."""
