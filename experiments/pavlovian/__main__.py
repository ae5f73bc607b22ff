"""The command line of this experiment: `python -m experiments.pavlovian`."""

from experiments.pavlovian import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="pavlovian")
