"""Samplers, as pure functions of a PRNG key, and loaders of real data."""
