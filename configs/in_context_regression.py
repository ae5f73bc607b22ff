"""In-context linear regression by one attention layer (He et al. 2025, arXiv 2503.12734).

    python -m experiments.in_context_regression --config=configs/in_context_regression.py:small \\
        --workdir=runs/in_context_regression

A multi-head softmax layer is trained from random weights on fresh regression prompts (d = 5,
L = 40, noise variance 0.1). Its key-query circuits become multiples of the identity, its
output-value circuits read the label only, heads pair up with opposite signs, and the layer computes
one step of *debiased* gradient descent (risk 0.2429), at every prompt length.

Presets (time on 2 CPU cores):
    small   5k steps, 6 seeds: the core claims. About 2 minutes.
    full    every claim: preconditioning, several tasks, other activations. About 10 minutes.
    paper   the paper's own sizes, 5e5 steps. Meant for accelerators.

Whether a run of two heads finds the pair depends on the signs at initialisation, so every claim is
a median over the seeds that found it, and the fraction that did is a claim of its own.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {
    "horizon": {
        "steps.isotropic": 7500,
        "steps.heads": 7500,
        "steps.length": 4500,
        "steps.trajectory": 2250,
    },
    "size": {"length": 50, "test_lengths": (10, 20, 50, 60, 80, 100)},
}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "isotropic,heads,length,estimators,printed,reduced_flow,trajectory,superposition"
    # The problem: d coordinates, L demonstrations, label noise variance.
    config.dim = 5
    config.length = 40
    config.noise_variance = 0.1
    # Off-diagonal decay of the covariance rho^|i-j| in the anisotropic study.
    config.rho = 0.5
    # Several responses, each over its own coordinates of task_dim.
    config.task_dim = 6
    config.tasks = ((0, 1, 2, 3), (2, 3, 4, 5))
    config.unequal_tasks = ((0, 1, 2, 3), (4, 5))
    # Head counts: of the main run and of the runs it is compared with, and for several tasks.
    config.heads = 2
    config.compared_heads = (1, 4)
    config.task_heads = (1, 2, 3, 4)
    # Weights f(s) / sum f(s) tried besides softmax.
    config.activations = ("affine", "square", "tanh")
    # "linear_default" | "small_identity" | "opposite_identity".
    config.init = "linear_default"
    # "adam" | "sgd".
    config.optimizer = "adam"
    config.learning_rate = 1e-3
    config.batch_size = 256
    # Independent runs, trained side by side; seed i is fold_in(key(seed), i).
    config.seeds = 6
    config.seed = 0
    # Training steps of each study.
    config.steps = ml_collections.ConfigDict(
        dict(
            isotropic=5_000,
            heads=5_000,
            length=3_000,
            trajectory=1_500,
            anisotropic=5_000,
            multitask=12_000,
            activation=5_000,
        )
    )
    # Circuits are noted, and the loss averaged, every so many steps.
    config.log_every = 100
    # Prompt lengths the trained layers are tested at, and test prompts.
    config.test_lengths = (10, 20, 40, 60, 80, 100)
    config.test_size = 50_000
    config.parallel = parallel_config()
    # A step is too small to fill two cores from within: train half of the seeds on each.
    config.parallel.cpu_devices = 2

    if preset == "full":
        config.study = "all"
        config.compared_heads = (1, 4, 8)
        config.test_size = 200_000
        config.test_lengths = tuple(range(10, 101, 10))
        config.steps.update(
            dict(
                isotropic=20_000,
                heads=10_000,
                length=10_000,
                anisotropic=10_000,
                multitask=20_000,
                activation=10_000,
            )
        )
    elif preset == "paper":
        config.study = "all"
        config.compared_heads = (1, 3, 4, 8)
        config.seeds = 8
        config.log_every = 1_000
        config.test_lengths = tuple(range(10, 101, 5))
        config.test_size = 200_000
        for study in ("isotropic", "heads", "length", "anisotropic", "multitask", "activation"):
            config.steps[study] = 500_000
    elif preset != "small":
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    return config
