"""Softmax attention as recurrent networks: which of its parts matters (arXiv 2507.23632).

    python -m experiments.softmax_as_rnn --config=configs/softmax_as_rnn.py:small \\
        --workdir=runs/softmax_as_rnn

The exponential of a score is a sum over orders n, and each order a recurrence whose features are
all products of n channels. Study "orders" measures how many orders it takes to be softmax, and what
the denominator does. Study "ablations" trains one small decoder with softmax, with its orders cut
off, with a norm or a length in place of its denominator, and with linear attention.

Presets (time on 2 CPU cores):
    small   orders; eight variants on associative recall, 2 seeds: 3 minutes.
    full    twenty variants, 3 seeds, more steps: under 13 minutes.
    paper   the paper's decoder and schedule, on text. For accelerators.

The paper trains on FineWeb with a tokenizer of 32,000 and gated MLPs; here text is read byte by
byte, from a file of your own if `config.text` names one, and MLPs are plain. Its losses are in
figures only, so claims about training are inequalities.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 450, "decay_steps": 450}, "size": {"dim": 24}}
MAY_BE_ZERO = ("decay_steps", "short_convolution", "warm_up")  # other sizes are at least 1
L2 = "gated_softmax_no_gate_L2norm_nodivS_noclamp"
EIGHT = (
    "softmax",
    L2,
    "gated_softmax_no_gate_rmsnorm_nodivS",
    "softmax_divs",
    "linear_relu",
    "taylor_2",
    "taylor_4",
    "taylor_6",
)
MORE = (
    "softmax_taylor_80terms",
    "softmax_clamp_denom",
    "softmax_detach_denom",
    "softmax_gate",
    "softmax_divS_gate",
    "softmax_divS_norm",
    "gated_softmax",
    "gated_softmax_no_norm",
    "gated_softmax_no_gate",
    "gated_ReLU_no_gate_L2norm_nodivS_noclamp",
    "linear_elu",
    "linear_cosine",
)


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Random queries, keys and values: channels, tokens, draws; scales of the scores; even orders
    # the series is cut at.
    config.orders = ml_collections.ConfigDict(
        dict(
            dim=8,
            length=32,
            draws=64,
            scales=(0.25, 1.0, 4.0),
            orders=(0, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 80),
        )
    )
    # What is trained: names of jattn.mechanisms.linear.softmax_variants.VARIANTS, or taylor_N for
    # the polynomial of order N.
    config.variants = EIGHT
    # "recall" or "text".
    config.task = "recall"
    # Recall: tokens known, tokens a sequence, pairs.
    config.vocabulary = 64
    config.length = 32
    config.pairs = 8
    # Text: a file to read (empty: the language reference that comes with Python), bytes a sequence.
    config.text = ""
    config.text_length = 64
    # The decoder; the width of the short convolutions (0: none); "none" or "rotary" positions.
    config.dim = 16
    config.heads = 1
    config.layers = 2
    config.mlp_ratio = 2.0
    config.short_convolution = 4
    config.positions = "none"
    # AdamW: the rate rises over warm_up steps, then falls on a line that ends at decay_steps.
    config.seeds = 2
    config.steps = 300
    config.warm_up = 50
    config.decay_steps = 300
    config.batch_size = 64
    config.learning_rate = 4e-3
    config.weight_decay = 0.1
    # Largest norm of a gradient; 0: any.
    config.clip = 1.0
    # Sequences the losses are taken on.
    config.test_size = 256
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset in ("full", "paper"):
        config.variants = EIGHT + MORE
        config.seeds = 3
        config.parallel.cpu_devices = 3
        config.steps = 600
        config.decay_steps = 600
        config.orders.draws = 256
        config.orders.scales = (0.25, 0.5, 1.0, 2.0, 4.0)
    if preset == "paper":
        config.task = "text"
        config.text_length = 1_024
        config.dim = 1_024
        config.heads = 16
        config.layers = 20
        config.short_convolution = 0
        config.positions = "rotary"
        config.seeds = 1
        config.steps = 100_000
        config.warm_up = 10_000
        config.decay_steps = 1_000_000
        config.batch_size = 36
        config.learning_rate = 1e-4
        config.weight_decay = 0.01
        config.test_size = 36
    return config
