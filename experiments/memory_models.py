"""Memories that learn at test time: Titans (arXiv 2501.00663) and Miras (arXiv 2504.13173).

    python -m experiments.memory_models --config=configs/memory_models.py:small \\
        --workdir=runs/memory_models

The settings, presets and expected times are in configs/memory_models.py.
"""

from configs.memory_models import PARTS
from experiments.memory import streams, trained
from jattn.training import Claim, Run, UsageError, cli

RUN = {
    "outliers": streams.outliers,
    "deep": streams.deep,
    "forgetting": streams.forgetting,
    "recall": trained.recall,
    "needles": trained.needles,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen parts and returns their claims."""
    chosen = PARTS if config.part == "all" else tuple(config.part.split(","))
    for name in chosen:
        if name not in PARTS:
            raise UsageError(f"part: expected any of {', '.join(PARTS)} or all, got {name!r}")
    if len(config.forgetting.forget) < 2:
        raise UsageError(
            f"forgetting.forget: expected at least 2, got {len(config.forgetting.forget)}"
        )
    trained.check(config)
    return [claim for name in PARTS if name in chosen for claim in RUN[name](run, config)]


if __name__ == "__main__":
    cli.main(run_experiment, name="memory_models")
