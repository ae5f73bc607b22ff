"""Mechanisms with a memory of their own, which is learned, relaxed or read while tokens pass."""
