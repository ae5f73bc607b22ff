"""The command line of this experiment: `python -m experiments.softmax_as_rnn`."""

from experiments.softmax_as_rnn import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="softmax_as_rnn")
