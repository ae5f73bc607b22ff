"""The command line of this experiment: `python -m experiments.key_value_heads`."""

from experiments.key_value_heads import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="key_value_heads")
