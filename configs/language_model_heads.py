"""Heads of a trained language model: which copy, retrieve, suppress, and keep a rhythm.

    make lm
    python -m experiments.language_model_heads \\
        --config=configs/language_model_heads.py:small --workdir=runs/language_model_heads

SmolLM2-135M reads random tokens twice, lists of facts, and short texts. Heads are scored by their
maps and weights, and silenced beside as many random ones.

Presets (time on 2 CPU cores):
    small   2 repeated sequences, 8 lists, 64 tokens of the weights' test: two minutes and
            a half beside other jobs.
    full    8 repeated sequences, 40 lists, 400 tokens, more draws of random heads: about half an
            hour (likewise).
"""

import ml_collections

PRESETS = ("small", "full")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"lists": 12, "sequences": 3}, "size": {"period": 64}}
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
    # Random tokens, twice: how many sequences, and how long each copy is.
    config.sequences, config.period = 2, 48
    # Heads that are silenced, and draws of as many random ones.
    config.silenced, config.draws = 10, 5
    # Lists of facts: how many, facts in each; and the share of heads that is masked.
    config.lists, config.facts, config.share = 8, 6, 0.05
    # Tokens of the weights' test, and what counts as suppression.
    config.tokens, config.suppresses = 64, 0.3
    if preset == "full":
        config.sequences, config.draws = 8, 20
        config.lists, config.tokens = 40, 400
    return config
