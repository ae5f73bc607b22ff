"""What a model that sees gets wrong, by aspect (arXiv 2309.04041).

    python -m experiments.agnosia --config=configs/agnosia.py:small --workdir=runs/agnosia

Scenes of one to four coloured shapes; questions whose answers are exact; a vision encoder and a
decoder of two layers each. The paper has photographs and models of billions of parameters.

The settings are the third that were tried, on one seed, and each time 9 of 10 claims held, another
one failing: with these, size of objects whose pair of shape and colour was never shown was seen
less well than that of others (agnosia 0.27 against 0). With a learning rate of 2e-3 it was (0.01),
but colour and shape of such objects were not worse than guessed (0.61 and 0.68). With that rate and
fewer steps a model without images did better than guessing, as items of those pairs could be
answered without looking; they are no longer part of that test. `reproduce --verify` tries other
seeds.

Presets (time on 2 CPU cores):
    small   1,200 steps of coarse teaching, 3,000 of all aspects, 400 of colour, one seed: about
            four minutes.
    full    1,600, 3,600 and 800 steps, 3 seeds: half an hour (an estimate).
    paper   the same as full: the paper's models are far larger.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"fine_steps": 4000}, "size": {"dim": 48}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    config.seed = 0
    # Scenes to learn from, questions of each aspect, and of the test; pairs of shape and colour
    # that are not shown, one a shape.
    config.scenes = 8_000
    config.questions = 6_000
    config.test_size = 300
    config.held_out = 4
    # The encoder and the decoder have so many layers each.
    config.dim = 64
    config.heads = 4
    config.layers = 2
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.coarse_steps = 1_200
    config.fine_steps = 3_000
    config.colour_steps = 400
    config.batch_size = 64
    config.learning_rate = 1e-3
    config.seeds = 1
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 1
    if preset in ("full", "paper"):
        config.coarse_steps = 1_600
        config.fine_steps = 3_600
        config.colour_steps = 800
        config.seeds = 3
    return config
