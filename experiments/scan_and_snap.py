"""Reproduces "Scan and Snap" (Tian et al. 2023, arXiv 2305.16380).

Closed forms of the training dynamics, the reduced dynamics, full gradient descent, and trained
models on synthetic sequence classes with many learning rates at once.

    python -m experiments.scan_and_snap --config=configs/scan_and_snap.py:small \\
        --workdir=runs/scan_and_snap

The settings, presets and expected times are in configs/scan_and_snap.py.
"""

from configs.scan_and_snap import PARTS
from experiments.scan_snap import text, theory, training
from jattn.training import Claim, Run, UsageError, cli

RUN = {
    "theory": theory.closed_forms,
    "reduced": theory.reduced,
    "descent": theory.population_descent,
    "small": training.small,
    "medium": training.medium,
    "text": text.text,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen parts and returns their claims."""
    chosen = PARTS if config.part == "all" else tuple(config.part.split(","))
    for name in chosen:
        if name not in PARTS:
            raise UsageError(f"part: expected any of {', '.join(PARTS)} or all, got {name!r}")
    return [claim for name in PARTS if name in chosen for claim in RUN[name](run, config)]


if __name__ == "__main__":
    cli.main(run_experiment, name="scan_and_snap")
