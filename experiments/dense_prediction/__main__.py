"""The command line of this experiment: `python -m experiments.dense_prediction`."""

from experiments.dense_prediction import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="dense_prediction")
