"""The command line of this experiment: `python -m experiments.mental_simulation`."""

from experiments.mental_simulation import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="mental_simulation")
