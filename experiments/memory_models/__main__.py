"""The command line of this experiment: `python -m experiments.memory_models`."""

from experiments.memory_models import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="memory_models")
