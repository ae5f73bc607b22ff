"""Associative recall by the linear and memory families, and by softmax (arXiv 2312.04927).

    python -m experiments.associative_recall --config=configs/associative_recall.py:small \\
        --workdir=runs/associative_recall

The settings, presets and expected times are in configs/associative_recall.py.
"""

from configs.associative_recall import PARTS
from experiments.recall import overwriting, trained
from jattn.training import Claim, Run, UsageError, cli

RUN = {"overwriting": overwriting.overwriting, "recall": trained.recall}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen parts and returns their claims."""
    chosen = PARTS if config.part == "all" else tuple(config.part.split(","))
    for name in chosen:
        if name not in PARTS:
            raise UsageError(f"part: expected any of {', '.join(PARTS)} or all, got {name!r}")
    trained.check(config)
    return [claim for name in PARTS if name in chosen for claim in RUN[name](run, config)]


if __name__ == "__main__":
    cli.main(run_experiment, name="associative_recall")
