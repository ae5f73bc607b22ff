"""The command line of this experiment: `python -m experiments.sparse_attention`."""

from experiments.sparse_attention import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="sparse_attention")
