"""The command line of this experiment: `python -m experiments.random_feature_attention`."""

from experiments.random_feature_attention import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="random_feature_attention")
