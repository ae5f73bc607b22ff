"""The command line of this experiment: `python -m experiments.language_model_circuits`."""

from experiments.language_model_circuits import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="language_model_circuits")
