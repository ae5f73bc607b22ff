"""The command line of this experiment: `python -m experiments.position_bias`."""

from experiments.position_bias import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="position_bias")
