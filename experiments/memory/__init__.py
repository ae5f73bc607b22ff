"""The studies of experiments/memory_models.py."""
