"""jattn: attention mechanisms as pure functions."""
