"""Linear mixers of patches in a vision transformer of one size (arXiv 2312.08874, 2601.13683).

    python -m experiments.image_mixers --config=configs/image_mixers.py:small \\
        --workdir=runs/image_mixers

Agent attention, DyDiLA and Flow-Attention (arXiv 2202.06258) tell digits apart, against softmax
attention and linear attention with plain feature maps. What a mixer has more or less of in
parameters, the MLPs make up for. Agent attention and DyDiLA know the grid of patches, and convolve
their values over it, as their papers have it; softmax attention does not.

Four agents come out best (0.976), above one agent (0.966) and, though not by two standard errors in
every seed, above softmax (0.963). DyDiLA (0.958) and Flow-Attention (0.967) are no better than the
feature maps they are compared with. Settings are the first that were tried.

Presets (time on 2 CPU cores):
    small   seven mixers, digits of 8 x 8 pixels, 3 seeds: 11 minutes on a machine with four other
            jobs, of an idle one not timed.
    full    more agents, parts of DyDiLA's banks removed, 5 seeds: not run.
    paper   the same on MNIST's digits of 28 x 28 pixels: the papers train on ImageNet, which is
            not here.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"epochs": 45}, "size": {"dim": 48}}
DYDILA = "dydila:projections=3:powers=9:shares=9"
SEVEN = (
    f"softmax_attention,agent_attention:agents=1,agent_attention:agents=4,{DYDILA},flow_attention,"
    "linear_attention,linear_attention:feature_map=relu"
)
MORE = (
    f"{SEVEN},agent_attention:agents=9,agent_attention:agents=16,dydila,dydila:powers=9:shares=9,"
    "dydila:projections=3:shares=9,dydila:projections=3:powers=9,hedgehog"
)


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    config.seed = 0
    # Names of the zoo with options, separated by commas. The first of DyDiLA is the one claims are
    # about.
    config.mechanisms = SEVEN
    # digits or mnist; side of a patch.
    config.dataset = "digits"
    config.patch = 2
    # The transformer.
    config.dim = 32
    config.heads = 4
    config.layers = 2
    config.mlp_ratio = 4.0
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.epochs = 30
    config.batch_size = 64
    config.learning_rate = 3e-3
    config.seeds = 3
    # Patches a side of the picture that times are taken on.
    config.speed_grid = 32
    config.parallel = parallel_config()
    # Each seed has its own.
    config.parallel.cpu_devices = 3
    if preset in ("full", "paper"):
        config.mechanisms = MORE
        config.seeds = 5
    if preset == "paper":
        config.dataset = "mnist"
        config.patch = 4
    return config
