"""A page that shows the inside of a language model on a prompt: `python -m experiments.view`."""
