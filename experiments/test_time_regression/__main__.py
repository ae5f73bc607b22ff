"""The command line of this experiment: `python -m experiments.test_time_regression`."""

from experiments.test_time_regression import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="test_time_regression")
