"""Frames: what mixers of a kind are built from, whatever their family."""
