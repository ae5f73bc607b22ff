"""Scan and Snap: training dynamics of a one-layer transformer (Tian et al. 2023, arXiv 2305.16380).

    python -m experiments.scan_and_snap --config=configs/scan_and_snap.py:small \\
        --workdir=runs/scan_and_snap

Next-token prediction over sequence classes. The gradient that reaches attention has one envelope:
while it rises attention scans, frequent distinct tokens winning and common tokens losing; once the
decoder has converged attention snaps, and freezes.

Presets (time on 2 CPU cores):
    small   theory, reduced dynamics, Syn-Small, Syn-Medium with 1 and 3 query tokens: 1 minute.
    full    all 64 cells of the paper's entropy table, and English text: 5 minutes.
    paper   the same with more seeds.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 150, "ode.time": 1000.0}, "size": {"length": 160}}
MAY_BE_ZERO = ("num_common",)  # other sizes are at least 1


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "theory,reduced,snapped,descent,small,medium"
    # Layout of the sequence classes of Syn-Small.
    config.data = ml_collections.ConfigDict(
        dict(
            num_last=2,
            num_next_per_last=1,
            num_common=10,
            num_distinct=10,
            p_common=1.0,
            p_min=0.1,
            p_max=1.0,
        )
    )
    # Tokens a sequence, the query included; sequences a step; training steps.
    config.length = 128
    config.batch_size = 128
    config.steps = 100
    config.seeds = 5
    config.seed = 0
    # Syn-Medium: numbers of query tokens, two classes each; seeds.
    config.medium_num_last = (1, 3)
    config.medium_seeds = 10
    # Theory: vocabulary M, classes K, learning rates, C0 of theorem 4, last time, Euler step.
    config.ode = ml_collections.ConfigDict(
        dict(
            vocabulary=1_000,
            classes=10,
            eta_y=(0.5, 1.0, 2.0, 5.0),
            eta_z=0.5,
            c0=1.0,
            time=700.0,
            reduced_eta_y=2.0,
            step=0.01,
        )
    )
    # English text: a file, or "" for the documentation that comes with Python.
    config.text_model = ml_collections.ConfigDict(
        dict(
            file="",
            vocabulary=2_000,
            dim=100,
            layers=(1, 3),
            length=35,
            batch_size=20,
            dropout=0.2,
            steps=400,
            logs=40,
            seeds=2,
            sgd_rates=(1.0, 3.0, 5.0),
            adam_rates=(0.001, 0.003),
        )
    )
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset in ("full", "paper"):
        config.study = "all"
        config.medium_num_last = (1, 3, 5, 10)
    if preset == "paper":
        config.seeds = 20
        config.medium_seeds = 40
        config.text_model.update(
            dict(
                vocabulary=28_800,
                dim=200,
                steps=6_000,
                sgd_rates=(1.0, 2.0, 3.0, 4.0, 5.0),
                adam_rates=(0.0003, 0.001, 0.003, 0.01),
            )
        )
    return config
