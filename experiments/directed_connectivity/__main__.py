"""The command line of this experiment: `python -m experiments.directed_connectivity`."""

from experiments.directed_connectivity import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="directed_connectivity")
