"""The command line of this experiment: `python -m experiments.image_mixers`."""

from experiments.image_mixers import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="image_mixers")
