"""The command line of this experiment: `python -m experiments.judged_search`."""

from experiments.judged_search import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="judged_search")
