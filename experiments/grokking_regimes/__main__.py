"""The command line of this experiment: `python -m experiments.grokking_regimes`."""

from experiments.grokking_regimes import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="grokking_regimes")
