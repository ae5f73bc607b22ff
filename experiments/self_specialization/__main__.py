"""The command line of this experiment: `python -m experiments.self_specialization`."""

from experiments.self_specialization import run_experiment
from jattn.training import cli

if __name__ == "__main__":
    cli.main(run_experiment, name="self_specialization")
