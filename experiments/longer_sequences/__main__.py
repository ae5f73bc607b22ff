"""The command line of this experiment: `python -m experiments.longer_sequences`."""

from experiments.longer_sequences import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="longer_sequences")
