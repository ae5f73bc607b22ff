"""The command line of this experiment: `python -m experiments.agnosia`."""

from experiments.agnosia import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="agnosia")
