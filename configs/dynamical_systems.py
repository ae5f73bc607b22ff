"""The Dynamical Systems Framework: attention, SSMs and RNNs as one recurrence (arXiv 2405.15731).

    python -m experiments.dynamical_systems --config=configs/dynamical_systems.py:small \\
        --workdir=runs/dynamical_systems

Softmax attention, linear attention, normalised attention, selective state space models and gated
RNNs are written as one linear time-varying system. Where that is exact it is checked to rounding;
softmax needs infinitely many features, and how many it takes is measured. Then the mixers are
trained on associative recall in one and the same model.

Presets (time on 2 CPU cores):
    small   the equivalences; linear attention with 2 and 16 states on 4 pairs; softmax, linear and
            normalised attention on 8 pairs: 3 minutes.
    full    all mixers, 4 seeds, 1500 steps on 4 pairs and 600 on 8: 15 minutes (an estimate).
    paper   the paper's longest task and its sweep of sizes and learning rates. For accelerators.

The paper's numbers are in figures only, so its claims about training are inequalities. Its
experiments on the Long Range Arena and on WikiText-103 (70M parameters) are not here, and neither
is its dropout of attention weights.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 1200, "mixer_steps": 600}, "size": {"dim": 80}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Sizes of the random systems whose two forms are compared: tokens, state, values.
    config.equivalences = ml_collections.ConfigDict(dict(length=64, state=8, value_dim=8, batch=4))
    # Softmax by a truncated series: state, tokens, scales of the scores, orders, draws.
    config.features = ml_collections.ConfigDict(
        dict(
            dim=4,
            length=9,
            scales=(0.1, 0.3, 1.0, 3.0),
            orders=(1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32),
            seeds=64,
        )
    )
    # Associative recall: vocabulary, tokens, pairs, the power law of the gaps; the number of
    # training sequences (0: always fresh ones).
    config.task = ml_collections.ConfigDict(
        dict(vocabulary=64, length=32, pairs=4, power=0.01, train_size=0, test_size=1_024)
    )
    config.dim = 64
    config.layers = 2
    # State expansions n = d_qk of linear attention.
    config.expansions = (2, 16)
    # Mixers, of experiments.dynamical_systems.model.MIXERS; their task, expansions and steps.
    config.mixers = ("softmax", "linear", "exp")
    config.mixer_pairs = 8
    config.mixer_expansions = (2, 16)
    config.mixer_steps = 400
    # Those that are trained with an MLP as well.
    config.with_mlp = ()
    config.seeds = 2
    config.steps = 800
    config.batch_size = 64
    # Each is tried; the best final accuracy counts.
    config.learning_rates = (3e-3,)
    config.weight_decay = 0.1
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset in ("full", "paper"):
        config.mixers = (
            "softmax", "linear", "exp", "softplus", "sigmoid", "ssd", "qlstm", "qlstm_reversed"
        )  # fmt: skip
        config.expansions = (2, 4, 16)
        config.with_mlp = ("softmax", "linear", "exp")
        config.steps = 1_500
        config.mixer_steps = 600
        config.seeds = 4
    if preset == "paper":
        config.task.update(dict(vocabulary=8_192, length=512, pairs=64))
        config.task.update(dict(train_size=100_000, test_size=3_072))
        config.dim = 512
        config.seeds = 2
        config.mixer_pairs = 64
        config.expansions = config.mixer_expansions = (32, 128, 256)
        config.batch_size = 64
        config.steps = config.mixer_steps = 100_000  # 64 epochs
        config.learning_rates = (1e-4, 4.64e-4, 2.15e-3, 1e-2)
    return config
