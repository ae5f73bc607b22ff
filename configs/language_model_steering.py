"""How far a small language model can be steered by few numbers: heads, channels, directions.

    make lm
    python -m experiments.language_model_steering \\
        --config=configs/language_model_steering.py:small --workdir=runs/language_model_steering

SmolLM2-135M, its weights frozen: vectors at chosen heads (LoFiT, ITI), task embeddings injected
head by head (SITE), channels scaled (AUSteer), a steering vector, injected concepts and whether
they show, and whether the model can report its own states (neurofeedback).

Presets (time on 2 CPU cores):
    small   a few dozen examples and steps a study: ten minutes of processor time beside other
            jobs, of which heads and feedback take most.
    full    more steps, prompts, draws of random heads and concepts: about half an hour.
"""

import ml_collections

PRESETS = ("small", "full")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"heads.steps": 60, "injection.steps": 90}, "size": {"concepts.depth": 0.6}}
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
    # Heads: how many are edited; the second number is also tried with random ones.
    config.heads = ml_collections.ConfigDict()
    config.heads.counts = (2, 8, 32)
    config.heads.draws = 2
    config.heads.train, config.heads.batch_size = 64, 8
    config.heads.steps, config.heads.learning_rates = 40, (5e-3, 2e-2)
    config.heads.penalty = 5e-4
    config.heads.strengths = (1.0, 5.0, 15.0)
    # Injection of tasks: prompts that are averaged, demonstrations in each.
    config.injection = ml_collections.ConfigDict()
    config.injection.prompts, config.injection.demonstrations = 10, 6
    config.injection.steps, config.injection.batch_size = 60, 8
    config.injection.learning_rate = 0.1
    # Channels: how many are scaled, and by how much.
    config.channels = ml_collections.ConfigDict()
    config.channels.count, config.channels.draws = 32, 5
    config.channels.alphas = (2.0, 8.0, 15.0)
    config.channels.layer = 15
    # Concepts: where they are injected, and how strongly.
    config.concepts = ml_collections.ConfigDict()
    config.concepts.count, config.concepts.baseline = 20, 20
    config.concepts.depth = 0.7
    config.concepts.strengths = (0.5, 1.0, 2.0, 4.0, 8.0)
    # Reports: examples in front of a question, and how many questions.
    config.feedback = ml_collections.ConfigDict()
    config.feedback.examples, config.feedback.questions = (0, 8, 24), 16
    config.feedback.depth = 0.5
    if preset == "full":
        config.heads.draws, config.heads.steps = 8, 160
        config.injection.prompts, config.injection.steps = 50, 200
        config.channels.draws = 40
        config.concepts.count, config.concepts.baseline = 32, 40
        config.feedback.questions = 32
    return config
