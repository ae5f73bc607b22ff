"""The parts of conditioning; `experiments.pavlovian` runs them."""
