"""Pools: any number of tokens into a fixed number."""
