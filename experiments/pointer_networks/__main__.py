"""The command line of this experiment: `python -m experiments.pointer_networks`."""

from experiments.pointer_networks import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="pointer_networks")
