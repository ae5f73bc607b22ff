"""The studies of experiments/dynamical_systems.py."""
