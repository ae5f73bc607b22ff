"""The command line of this experiment: `python -m experiments.affine_attention`."""

from experiments.affine_attention import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="affine_attention")
