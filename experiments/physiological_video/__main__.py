"""The command line of this experiment: `python -m experiments.physiological_video`."""

from experiments.physiological_video import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="physiological_video")
