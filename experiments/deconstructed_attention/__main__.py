"""The command line of this experiment: `python -m experiments.deconstructed_attention`."""

from experiments.deconstructed_attention import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="deconstructed_attention")
