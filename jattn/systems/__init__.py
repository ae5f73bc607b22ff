"""Algorithms of systems around a model, as pure functions: judges, filters, scores."""
