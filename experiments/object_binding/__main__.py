"""The command line of this experiment: `python -m experiments.object_binding`."""

from experiments.object_binding import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="object_binding")
