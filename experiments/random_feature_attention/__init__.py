"""Reproduces "What can a single attention layer learn?" (Fu et al. 2023, arXiv 2307.11353).

Fits one attention layer with frozen random query-key matrices exactly, and compares how many
examples, keys and heads it needs with what a random-feature network and biased matrices need.

    python -m experiments.random_feature_attention \\
        --config=configs/random_feature_attention.py:small --workdir=runs/random_feature_attention

The settings, presets and expected times are in configs/random_feature_attention.py. The targets
and sizes are in the setting of the paper; they are not its own figures.
"""

from experiments.random_feature_attention import samples, sweeps
from experiments.random_feature_attention.common import MODELS
from jattn.tasks.random_feature_targets import target
from jattn.theory.random_features import ACTIVATIONS
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {
    "samples": samples.samples,
    "keys": sweeps.keys,
    "heads": sweeps.heads,
    "interaction": sweeps.interaction,
    "bias": sweeps.bias,
    "wide": samples.wide,
    "kernel": sweeps.kernel,
}


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    unknown = set(config.models) - set(MODELS)
    if unknown:
        raise UsageError(f"models: expected any of {', '.join(MODELS)}, got {unknown.pop()!r}")
    if config.activation not in ACTIVATIONS:
        expected = ", ".join(ACTIVATIONS)
        raise UsageError(f"activation: expected one of {expected}, got {config.activation!r}")
    for name in config.targets:
        try:
            target(name)
        except ValueError as error:
            raise UsageError(str(error).replace("target:", "targets:")) from None
    sweeps_of_sizes = {
        "sample_sizes": config.sample_sizes,
        "key_sweep.counts": config.key_sweep.counts,
        "head_sweep.counts": config.head_sweep.counts,
        "kernel.counts": config.kernel.counts,
    }
    for field, sizes in sweeps_of_sizes.items():
        if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
            raise UsageError(f"{field}: expected rising positive numbers, got {tuple(sizes)}")
    if min(config.sample_sizes) < 5:
        raise UsageError(f"sample_sizes: expected at least 5, got {min(config.sample_sizes)}")
    if not config.ridge_grid or min(config.ridge_grid) <= 0:
        raise UsageError(f"ridge_grid: expected positive penalties, got {config.ridge_grid}")
    if config.seeds < 1:
        raise UsageError(f"seeds: expected at least 1, got {config.seeds}")


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    check(config)
    return run_studies(run, config, STUDIES)
