"""The command line of this experiment: `python -m experiments.world_model`."""

from experiments.world_model import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="world_model")
