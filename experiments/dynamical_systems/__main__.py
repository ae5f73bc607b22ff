"""The command line of this experiment: `python -m experiments.dynamical_systems`."""

from experiments.dynamical_systems import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="dynamical_systems")
