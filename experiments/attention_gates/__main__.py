"""The command line of this experiment: `python -m experiments.attention_gates`."""

from experiments.attention_gates import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="attention_gates")
