"""The bake-off: one small decoder, any list of mechanisms, the same data, steps and parameters.

    python -m experiments.bakeoff --config=configs/bakeoff.py:small --workdir=runs/bakeoff
    python -m experiments.bakeoff --config=configs/bakeoff.py:full --workdir=runs/bakeoff_full \\
        --config.mechanisms=retention,gated_delta_rule,softmax_attention

Every mechanism is trained on English text byte by byte, on associative recall, on copying and on
induction, from several seeds; the text model is then read at up to 16 times its length. A mechanism
that fails is a row that says why.

Presets (time on 2 CPU cores):
    small   eight mechanisms, 3 seeds. About 8 minutes.
    full    all causal mechanisms, longer training. Hours.
    paper   all of them, a larger decoder, 5 seeds; for accelerators.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 600}, "size": {"dim": 48}}
FORMER = ("images", "sinks", "study")  # fields of earlier versions; runs that have them go on
TASKS = ("text", "recall", "copy", "induction")
EIGHT = (
    "softmax_attention",
    "reweighted_softplus_attention",
    "gated_attention",
    "differential_attention",
    "linear_attention",
    "retention",
    "gated_delta_rule",
    "gated_mlp",
)


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Names of the zoo, separated by commas; "all": every one that is causal. With options:
    # name:option=value:option=value. Several in turn, layer by layer: name+name.
    config.mechanisms = ",".join(EIGHT)
    # Comma-separated: any of TASKS.
    config.tasks = ",".join(TASKS)
    # A text file to read; empty: the language reference that comes with Python.
    config.text = ""
    # The decoder. "rotary" positions where a mechanism can rotate, else (or "none") none.
    config.dim = 32
    config.heads = 4
    config.layers = 2
    config.mlp_ratio = 4.0
    config.positions = "rotary"
    # Sequences: of text; of the other tasks, with their vocabulary and the pairs to recall.
    config.text_length = 64
    config.length = 32
    config.vocabulary = 32
    config.pairs = 4
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine. The loss has 0.01 of
    # the mechanisms' auxiliary losses, where they have any (`jattn.nn.AUXILIARY_WEIGHT`).
    config.steps = 400
    config.batch_size = 16
    config.learning_rate = 3e-3
    config.seeds = 3
    config.seed = 0
    # Test sequences a seed, and the multiples of the text's length they are read at.
    config.test_size = 128
    config.stretches = (1, 4, 16)
    config.parallel = parallel_config()
    # Each seed has its own.
    config.parallel.cpu_devices = 3
    if preset in ("full", "paper"):
        config.mechanisms = "all"
        config.stretches = (1, 2, 4, 8, 16)
        config.steps = 2_000
        config.dim = 64
        config.length = 64
        config.vocabulary = 64
        config.pairs = 8
    if preset == "paper":
        config.dim = 256
        config.heads = 8
        config.layers = 6
        config.text_length = 512
        config.length = 256
        config.vocabulary = 512
        config.pairs = 32
        config.steps = 20_000
        config.batch_size = 64
        config.learning_rate = 1e-3
        config.seeds = 5
        config.test_size = 1_024
    return config
