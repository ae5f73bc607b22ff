"""Reproduces "In-context linear regression demystified" (He et al. 2025, arXiv 2503.12734).

Trains one attention layer on fresh regression prompts and compares what its circuits become, and
the risk it reaches, with closed forms.

    python -m experiments.in_context_regression --config=configs/in_context_regression.py:small \\
        --workdir=runs/in_context_regression

The settings, presets and expected times are in configs/in_context_regression.py.
"""

import functools

from experiments.in_context_regression import extensions, isotropic, printed, reduced
from jattn.tasks.linear_regression import linear_regression
from jattn.theory import in_context_attention as layer
from jattn.training import Claim, Run, UsageError, run_studies

# These three take a function that gives the main run.
ON_MAIN_RUN = {
    "isotropic": isotropic.isotropic,
    "heads": isotropic.heads,
    "length": isotropic.length,
}
ALONE = {
    "estimators": reduced.estimators,
    "printed": printed.printed,
    "reduced_flow": reduced.reduced_flow,
    "trajectory": reduced.trajectory,
    "anisotropic": extensions.anisotropic,
    "multitask": extensions.multitask,
    "activation": extensions.activation,
    "superposition": extensions.superposition,
}
STUDIES = ON_MAIN_RUN | ALONE


def check(config) -> None:
    """Refuses settings that could not work, before anything is trained."""
    if config.optimizer not in ("adam", "sgd"):
        raise UsageError(f"optimizer: expected one of adam, sgd, got {config.optimizer!r}")
    if config.init not in layer.INITS:
        raise UsageError(f"init: expected one of {', '.join(layer.INITS)}, got {config.init!r}")
    unknown = set(config.activations) - set(layer.ACTIVATIONS)
    if unknown:
        raise UsageError(
            f"activations: expected any of {', '.join(layer.ACTIVATIONS)}, got {unknown.pop()!r}"
        )
    if config.length not in config.test_lengths:
        raise UsageError(
            f"test_lengths: the trained length {config.length} must be among them, "
            f"got {config.test_lengths}"
        )
    try:
        linear_regression(config.task_dim, config.length, config.noise_variance, tasks=config.tasks)
        linear_regression(config.dim, config.length, config.noise_variance)
    except ValueError as error:
        raise UsageError(str(error)) from None


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    check(config)
    main = functools.cache(functools.partial(isotropic.main_run, run, config))
    on_main_run = {name: functools.partial(f, main=main) for name, f in ON_MAIN_RUN.items()}
    return run_studies(run, config, on_main_run | ALONE)
