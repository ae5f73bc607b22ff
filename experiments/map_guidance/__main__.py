"""The command line of this experiment: `python -m experiments.map_guidance`."""

from experiments.map_guidance import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="map_guidance")
