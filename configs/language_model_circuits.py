"""Circuits of a trained language model: of two tasks, what they share, repair, and fine-tuning.

    make lm
    python -m experiments.language_model_circuits \\
        --config=configs/language_model_circuits.py:small --workdir=runs/language_model_circuits

SmolLM2-135M completes sentences with an indirect object, and with the colour of one of three
objects. Heads are scored by patching, or by its first order (EAP-IG); some are made to look where
they should; and low-rank adapters are trained on colours, with circuits before and after.

Presets (time on 2 CPU cores):
    small   4 prompts a task, exact patching of one, 24 steps of training: three minutes
            beside other jobs.
    full    16 prompts a task, exact patching of 8, 96 steps: about half an hour (an estimate).
"""

import ml_collections

PRESETS = ("small", "full")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"prompts": 6}, "size": {"circuit": 16}}
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
    # Prompts a task; how many of the first one's are patched exactly; steps of EAP-IG.
    config.prompts, config.exact, config.steps = 4, 1, 5
    # Heads that are patched together, draws of random ones, and heads in a circuit.
    config.together, config.draws, config.circuit = 10, 5, 20
    # Repair: heads that are forced, prompts that choose them and that test them.
    config.repair = ml_collections.ConfigDict()
    config.repair.heads, config.repair.choose, config.repair.test = 4, 4, 12
    # Fine-tuning on colours: adapters, and how often circuits are taken.
    config.tuning = ml_collections.ConfigDict()
    config.tuning.rank, config.tuning.learning_rate = 4, 3e-3
    config.tuning.steps, config.tuning.batch_size, config.tuning.train = 24, 4, 32
    config.tuning.checkpoints = 2
    if preset == "full":
        config.prompts, config.exact, config.draws = 16, 8, 20
        config.repair.choose, config.repair.test = 16, 48
        config.tuning.steps, config.tuning.train, config.tuning.checkpoints = 96, 96, 4
    return config
