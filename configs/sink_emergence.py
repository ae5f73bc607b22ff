"""When attention sinks emerge (arXiv 2410.10781).

    python -m experiments.sink_emergence --config=configs/sink_emergence.py:small \\
        --workdir=runs/sink_emergence

One layer of one head, which must copy after triggers and rest elsewhere: two layers of two heads
share that work, and their sink is weak (see `configs/attention_sinks.py`). Without a fixed first
token one layer can know its first position by learned positions only.

What came out on bigrams (nothing was changed after it): alpha_1 of softmax is 0.24, and few samples
pass the paper's threshold of 0.3, so that Sink_1 is 0.04 and most orders of Sink_1 stay open. Clear
is: a key bias takes it all (Sink_* 1.00, Sink_1 0.00, the same loss); an elu kernel divided by its
sum has the strongest sink (0.84, elu without 0.00); a fixed token at position 2 has it there
(0.46), at position 3 not (alpha 0.14); the first value is small (0.46 of the others) and queries
point to its key; windows, prefixes, small rates and few data have none. Against the paper: sigmoid
attention without normalisation has 0.20 and with it none, by one seed of two; weight decay
takes the sink away from the start (0.28 without, 0.04 at 0.1, none at 0.5). On text no head of
this size has a sink after 800 steps, of no kind. SmolLM2-135M has Sink_1 0.71, the next 0.05.

Presets (time on 2 CPU cores):
    small   25 arms on bigrams, 10 on text, 2 seeds, 800 steps: 3 to 4 minutes (an estimate for an
            idle machine; 14 on a busy one).
    full    the same with 6 seeds and 2,400 steps.
    paper   a larger decoder, trained longer; for accelerators.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 1_200}, "size": {"dim": 40}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Bigrams: tokens, and how many of them are triggers. Text: a file, or Python's reference.
    config.vocabulary = 33
    config.triggers = 3
    config.text = ""
    # Tokens a sequence.
    config.length = 32
    # The decoder.
    config.dim = 32
    config.heads = 1
    config.layers = 1
    # Arms that differ from the usual one: weight decays (the usual is 0.1), factors of the learning
    # rate, keys in a window, tokens of a prefix, and sequences where data are few.
    config.decays = (0.0, 0.5, 5.0)
    config.rates = (0.125,)
    config.window = 8
    config.prefix = 8
    config.few = 64
    config.steps = 800
    config.batch_size = 16
    config.learning_rate = 3e-3
    config.seeds = 2
    config.eval_every = 50
    config.test_size = 64
    # The trained model reads so many sequences of so many tokens.
    config.trained_sequences = 16
    config.trained_length = 64
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset == "full":
        config.seeds = 6
        config.steps = 2_400
        config.rates = (0.125, 0.25, 0.5)
        config.trained_sequences = 100
    if preset == "paper":
        config.length = 512
        config.dim = 512
        config.heads = 8
        config.layers = 8
        config.window = 64
        config.prefix = 64
        config.few = 1_024
        config.steps = 20_000
        config.batch_size = 64
        config.learning_rate = 4e-4
        config.seeds = 4
        config.eval_every = 200
        config.trained_sequences = 100
    return config
