"""The command line of this experiment: `python -m experiments.scan_and_snap`."""

from experiments.scan_and_snap import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="scan_and_snap")
