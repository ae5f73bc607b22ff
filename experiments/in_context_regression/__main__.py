"""The command line of this experiment: `python -m experiments.in_context_regression`."""

from experiments.in_context_regression import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="in_context_regression")
