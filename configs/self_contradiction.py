"""Whether a model's contradictions of itself give its hallucinations away (arXiv 2305.15852).

    python -m experiments.self_contradiction --config=configs/self_contradiction.py:small \\
        --workdir=runs/self_contradiction

Biographies of 64 invented people with 8 attributes of 16 values; two facts in five have two or
three values in the texts of training, with known weights. The judge is the exact parser, asked of
ten alternatives, or the model itself, which has also learned to compare clauses. The paper has
ChatGPT and others write encyclopedic texts.

Two runs of these sizes were looked at. In the first all claims but the last held: the model had
seen one pair in a row, and did not learn to compare clauses (F1 0.30, where always yes has 0.35).
Rows are full of pairs since; in the second it did not learn to either (0.31), and that claim fails.
How often going on names a fact's attribute is no claim: each text tells every attribute once, so it
is more often than the 1 in 8 of a sentence by itself.

Study `judges` asks SmolLM2-135M, as it is and with adapters trained on 256 pairs (`make lm`
installs it).

Presets (time on 2 CPU cores):
    small   one model, 800 steps, four texts of each person: three minutes.
    full    three models of 2,400 steps, and the study `judges`: an hour (an estimate).
    paper   the same as full: the paper's models are far larger.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 1200}, "size": {"dim": 64}}
MAY_BE_ZERO = ("rounds",)


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "biographies"
    config.seed = 0
    # Share of facts that have two or three values; texts that are written of each person.
    config.ambiguous = 0.4
    config.texts = 4
    # The judge: alternatives or votes of each fact, and the share of them that flags it; rounds of
    # revising before what is still flagged is dropped.
    config.votes = 10
    config.threshold = 0.5
    config.rounds = 3
    # The model.
    config.dim = 96
    config.heads = 4
    config.layers = 2
    config.hidden = 192
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.steps = 800
    config.batch_size = 64
    config.learning_rate = 3e-3
    config.seeds = 1
    # Study judges: the trained model, pairs for its adapters and of the test, steps.
    config.model = "smollm2-135m"
    config.pairs = 256
    config.rank = 8
    config.adapter_steps = 60
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 1
    if preset in ("full", "paper"):
        config.study = "all"
        config.seeds = 3
        config.steps = 2_400
    return config
