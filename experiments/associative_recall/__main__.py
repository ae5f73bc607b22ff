"""The command line of this experiment: `python -m experiments.associative_recall`."""

from experiments.associative_recall import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="associative_recall")
