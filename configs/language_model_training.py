"""What attention does for training: perturbed where it hurts, and shifted to forget.

    python -m experiments.language_model_training \\
        --config=configs/language_model_training.py:small --workdir=runs/language_model_training

A bidirectional LSTM with additive attention reads made-up reviews (attention AT and VAT); a Llama
of two layers learns facts by heart and is to forget some (attention shifting). Both are trained
here from nothing; no pretrained model is needed.

Presets (time on 2 CPU cores):
    small   600 steps of 5 readers, 3 models that forget: about three minutes.
    full    2,400 steps of 10 readers, 10 models.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"readers.steps": 900, "forget.steps": 450}, "size": {"readers.dim": 48}}
SCALE = "models of one or two layers trained here, where the papers tune language models"


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Reviews: words, how many of them are good and as many bad, tokens a review.
    config.reviews = ml_collections.ConfigDict()
    config.reviews.vocabulary, config.reviews.keywords, config.reviews.length = 200, 10, 16
    config.reviews.train, config.reviews.labelled, config.reviews.test = 2_000, 50, 500
    # Readers: Adam at a constant rate; epsilons of the two perturbations.
    config.readers = ml_collections.ConfigDict()
    config.readers.dim, config.readers.hidden = 32, 32
    config.readers.seeds, config.readers.steps, config.readers.batch_size = 5, 600, 32
    config.readers.learning_rate = 1e-3
    config.readers.adversarial, config.readers.virtual = 1.0, 1.0
    # Forgetting: facts, how many are to be forgotten, models; steps of learning and of forgetting.
    config.forget = ml_collections.ConfigDict()
    config.forget.facts, config.forget.forgotten, config.forget.seeds = 20, 4, 3
    config.forget.steps, config.forget.shift_steps = 300, 400
    config.forget.learning_rate, config.forget.rank = 3e-3, 4
    config.forget.suppress, config.forget.reinforce, config.forget.share = 0.99, 0.2, 0.5
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 1
    if preset == "full":
        config.readers.seeds, config.readers.steps = 10, 2_400
        config.forget.seeds = 10
    return config
