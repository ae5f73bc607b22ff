"""Whether a captioner learns from captions that it made worse itself (arXiv 2509.11287).

    python -m experiments.self_injection --config=configs/self_injection.py:small \\
        --workdir=runs/self_injection

Scenes of 24 objects in four topics; annotators name what is not there more often the later. Two
captioners: a log-linear one of six sentences, and a Llama of two layers whose sentences are an
object and a place, and which reads one token for each object that is seen. A sentence that is
replaced names a guide, and its place is read off the words alone. There is one way to say that
something is there, so the paper's twenty templates have no counterpart, and neither have its
penalty of repetitions and its questions (yes or no). The trained language model of the other
systems reads no images and has no part here.

One run of these sizes was looked at (22 minutes on a machine that was busy with other work):
CHAIR_i and recall of the log-linear captioner came out within 0.02 of an independent program's, and
what is claimed of them holds for both captioners. Of where sentences are replaced, by what, and how
many by round no claim holds; that they differ at all is not certain. In an earlier one, of the
log-linear captioner alone, annotators had named absent objects of the topic only, of which there
are too few to be wrong as often as is said, and all five claims held of one seed.

Presets (time on 2 CPU cores):
    small   three seeds of the log-linear captioner, one Llama: five minutes (an estimate).
    full    8 and 3 seeds, longer training: 40 minutes (an estimate).
    paper   the same as full: the paper's model has seven billion parameters.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 900}, "size": {"dim": 64}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    config.linear_seeds = 3
    config.seeds = 1
    # Rounds; the share of sentences that is replaced, and that by round of the curriculum.
    config.rounds = 3
    config.rate = 0.3
    config.curriculum = (0.6, 0.3, 0.2)
    # Objects from which a guide is drawn; beta of DPO; scenes of the test.
    config.candidates = 10
    config.beta = 0.1
    config.test = 2_000
    # The log-linear captioner's teaching, and rounds of both: pairs, and steps of Adam.
    config.linear_steps = 400
    config.linear_dpo = ml_collections.ConfigDict(
        dict(pairs=2_000, steps=100, batch_size=256, learning_rate=0.05)
    )
    config.llama_dpo = ml_collections.ConfigDict(
        dict(pairs=300, steps=40, batch_size=32, learning_rate=3e-4)
    )
    # The Llama.
    config.dim = 96
    config.heads = 4
    config.layers = 2
    config.hidden = 192
    # Its teaching: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.steps = 600
    config.batch_size = 64
    config.learning_rate = 3e-3
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 1
    if preset in ("full", "paper"):
        config.linear_seeds = 8
        config.seeds = 3
        config.steps = 1_500
    return config
