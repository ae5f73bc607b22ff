"""The command line of this experiment: `python -m experiments.attention_sinks`."""

from experiments.attention_sinks import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="attention_sinks")
