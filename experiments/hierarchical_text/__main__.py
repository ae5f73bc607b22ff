"""The command line of this experiment: `python -m experiments.hierarchical_text`."""

from experiments.hierarchical_text import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="hierarchical_text")
