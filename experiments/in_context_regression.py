"""Reproduces "In-context linear regression demystified" (He et al. 2025, arXiv 2503.12734).

Trains one attention layer on fresh regression prompts and compares what its circuits become, and
the risk it reaches, with closed forms.

    python -m experiments.in_context_regression --config=configs/in_context_regression.py:small \\
        --workdir=runs/in_context_regression

The settings, presets and expected times are in configs/in_context_regression.py.
"""

from configs.in_context_regression import STUDIES
from experiments.icl import extensions, isotropic, reduced
from jattn.training import Claim, Run, UsageError, cli

ON_MAIN_RUN = {
    "isotropic": isotropic.isotropic,
    "heads": isotropic.heads,
    "length": isotropic.length,
}
ALONE = {
    "estimators": reduced.estimators,
    "reduced_flow": reduced.reduced_flow,
    "trajectory": reduced.trajectory,
    "anisotropic": extensions.anisotropic,
    "multitask": extensions.multitask,
    "activation": extensions.activation,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    chosen = STUDIES if config.study == "all" else tuple(config.study.split(","))
    for name in chosen:
        if name not in STUDIES:
            raise UsageError(f"study: expected any of {', '.join(STUDIES)} or all, got {name!r}")
    main = isotropic.main_run(run, config) if ON_MAIN_RUN.keys() & set(chosen) else None
    claims: list[Claim] = []
    for name in STUDIES:
        if name in chosen and main is not None and name in ON_MAIN_RUN:
            claims += ON_MAIN_RUN[name](run, config, main)
        elif name in chosen:
            claims += ALONE[name](run, config)
    return claims


if __name__ == "__main__":
    cli.main(run_experiment, name="in_context_regression")
