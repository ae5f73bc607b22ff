"""The command line of this experiment: `python -m experiments.hedgehog_conversion`."""

from experiments.hedgehog_conversion import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="hedgehog_conversion")
