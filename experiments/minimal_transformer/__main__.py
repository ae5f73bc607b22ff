"""The command line of this experiment: `python -m experiments.minimal_transformer`."""

from experiments.minimal_transformer import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="minimal_transformer")
