"""The command line of this experiment: `python -m experiments.brain_readout`."""

from experiments.brain_readout import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="brain_readout")
