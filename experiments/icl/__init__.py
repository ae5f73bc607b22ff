"""The studies of in-context regression; `experiments.in_context_regression` runs them."""
