"""The command line of this experiment: `python -m experiments.sink_emergence`."""

from experiments.sink_emergence import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="sink_emergence")
