"""Whether mending cross-attention mends pictures (arXiv 2306.14544, 2507.06033, 2506.10978).

    python -m experiments.map_guidance --config=configs/map_guidance.py:small \\
        --workdir=runs/map_guidance

Scenes of one to three shapes of different colours on 24 x 24 pixels; a diffusion transformer with
cross-attention to the caption's words, which predicts velocities. Whether an image shows what its
caption names is read off exactly. The papers work on large image generators and judge by CLIP, OCR
and people; fixed are the losses and edits, not step sizes: those are chosen on captions that are
not of the test. A-STAR's maps are means over all layers and heads, for there is one size of grid.

One run of `small` was looked at (950 s beside other jobs). Its generator is no good: colours are
the caption's, but of single objects 0.05 are drawn whole, of three none, so nothing can be told
of what guidance does. It has to be trained for longer, or of easier scenes, before these claims
mean anything; until then the experiment is not registered.

Presets (time on 2 CPU cores):
    small   a generator of 0.3 million parameters, 4,000 steps: see above.
    full    5 layers of 96, 10,000 steps, more captions.
    paper   the same as full: the papers' generators have a billion parameters and more.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 5_000}, "size": {"dim": 80}}
SCALE = "a generator of 0.3 million parameters, where the papers use a billion and more"


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "guidance"
    config.seed = 0
    # The generator: how patches see each other, side of a patch, sizes.
    config.mechanism = "softmax_attention"
    config.patch = 4
    config.dim = 64
    config.heads = 4
    config.layers = 3
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.steps = 4_000
    config.batch_size = 32
    config.learning_rate = 2e-3
    # Images: steps of DDIM, weight of guidance towards the caption.
    config.sampling_steps = 20
    config.guidance = 2.0
    # Sets of captions of the test, and captions of each; captions that choices are made on.
    config.sets = 4
    config.test = 64
    config.chosen_on = 64
    # Search of heads.
    config.rounds = 2
    config.heads_a_round = 2
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 1
    if preset in ("full", "paper"):
        config.layers = 5
        config.dim = 96
        config.heads = 6
        config.steps = 10_000
        config.test = 256
        config.chosen_on = 256
    return config
