"""The command line of this experiment: `python -m experiments.step_sizes`."""

from experiments.step_sizes import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="step_sizes")
