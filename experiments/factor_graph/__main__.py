"""The command line of this experiment: `python -m experiments.factor_graph`."""

from experiments.factor_graph import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="factor_graph")
