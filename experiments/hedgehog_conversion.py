"""Turns a trained softmax decoder into a linear one by Hedgehog's feature maps (arXiv 2402.04347).

    python -m experiments.hedgehog_conversion --config=configs/hedgehog_conversion.py:small \\
        --workdir=runs/hedgehog_conversion

The settings, presets and expected times are in configs/hedgehog_conversion.py.
"""

from configs.hedgehog_conversion import PARTS
from experiments.conversion import converted, features
from jattn.training import Claim, Run, UsageError, cli

RUN = {"features": features.features, "conversion": converted.conversion}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen parts and returns their claims."""
    chosen = PARTS if config.part == "all" else tuple(config.part.split(","))
    for name in chosen:
        if name not in PARTS:
            raise UsageError(f"part: expected any of {', '.join(PARTS)} or all, got {name!r}")
    converted.check(config)
    return [claim for name in PARTS if name in chosen for claim in RUN[name](run, config)]


if __name__ == "__main__":
    cli.main(run_experiment, name="hedgehog_conversion")
