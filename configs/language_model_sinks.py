"""Sinks in a trained language model: where they are, and what comes of moving their weight.

    make lm
    python -m experiments.language_model_sinks \\
        --config=configs/language_model_sinks.py:small --workdir=runs/language_model_sinks

SmolLM2-135M reads five short texts: the first token and a few others draw attention, in two
phases of layers. The weight on them is tuned (ZeroTuning), spread (ACT), and taken away. Small
decoders trained with other normalisers show what a sink needs, and made-up maps what magnets do.

Presets (time on 2 CPU cores):
    small   the heads that a gradient picks are tried one by one: six minutes beside others.
    full    all 252 heads are tried one by one, decoders of 6 seeds: about half an hour (estimate).
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"decoder.steps": 900}, "size": {"calibration.length": 32}}
SCALE = "SmolLM2 of 135 million parameters, where the papers' models are larger"


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # The model: installed by `make lm`, a GGUF file, or a folder of Hugging Face.
    config.model = "smollm2-135m"
    # Its layers, from first to last: those of secondary sinks, between the phases, and the second.
    config.middle = (3, 9)
    config.between = (10, 11)
    config.late = (12, 28)
    # Factors of the weight on the first token.
    config.factors = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
    # Calibration: what sinks keep, and above which mean weight they are sinks.
    config.calibration = ml_collections.ConfigDict()
    config.calibration.keep, config.calibration.threshold = 0.4, 0.1
    config.calibration.first_layer = 2
    config.calibration.tried = 27
    config.calibration.length = 24
    # Decoders that are trained: one layer of one head, which must copy and rest.
    config.decoder = ml_collections.ConfigDict()
    config.decoder.seed = 0
    config.decoder.vocabulary, config.decoder.triggers, config.decoder.length = 33, 3, 48
    config.decoder.dim, config.decoder.steps, config.decoder.batch_size = 64, 600, 32
    config.decoder.learning_rate, config.decoder.seeds = 2e-3, 2
    config.decoder.test_size = 64
    config.parallel = parallel_config()
    if preset == "full":
        config.calibration.tried = 252
        config.decoder.steps, config.decoder.seeds = 2_400, 6
    return config
