"""Whether attention can be turned so that a language model answers from its context.

    make lm
    python -m experiments.language_model_faithfulness \\
        --config=configs/language_model_faithfulness.py:small \\
        --workdir=runs/language_model_faithfulness

SmolLM2-135M is asked for one of three names that stand in front of the question, which it gets
right about half of the time. Methods that were made against hallucination change its heads and
maps: VHR, gaze heads, AAI; VAR, GIFT, token emphasis, LocoRE; CARVE and saliency read them.

Presets (time on 2 CPU cores):
    small   18 questions: five minutes and a half beside other jobs.
    full    72 questions, more draws of random heads: about half an hour.
"""

import ml_collections

PRESETS = ("small", "full")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"questions": 27}, "size": {"keep": 0.5}}
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
    # Questions that are tested, others by which heads are chosen, and draws of random heads.
    config.questions, config.chosen_by, config.draws = 18, 9, 2
    # Heads: how many are turned, the factors of VHR, the biases in all heads.
    config.count = 24
    config.factors = (1.25, 1.5, 2.0)
    config.turn = 4.0
    config.biases = (1.0, 2.0)
    # Maps: shares that stay on sinks, exponents of GIFT, strengths of emphasis, betas of LocoRE.
    config.keep, config.alpha = 0.6, 5.0
    config.emphasis = (0.35, 0.7, 1.4)
    config.betas = (0.15, 1.0)
    if preset == "full":
        config.questions, config.chosen_by, config.draws = 72, 36, 8
    return config
