"""The command line of this experiment: `python -m experiments.attentive_probing`."""

from experiments.attentive_probing import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="attentive_probing")
