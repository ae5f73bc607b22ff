"""What attention finds in sequences longer than those of training.

    python -m experiments.longer_sequences --config=configs/longer_sequences.py:small \\
        --workdir=runs/longer_sequences

Presets (time on 2 CPU cores):
    small   every study with a few seeds: about 3 minutes.
    full    more seeds, longer training.
    paper   full with wider decoders and longer sequences; for accelerators.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {
    "horizon": {"needle.steps": 1200, "period.steps": 1200, "softplus.steps": 600},
    "size": {"needle.dim": 30, "period.dim": 48},
}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Period: notes a melody has (from the shortest to the longest), notes to choose from, and the
    # length of training; twice that is tested.
    config.period = ml_collections.ConfigDict()
    config.period.seeds = 2
    config.period.steps = 800
    config.period.batch_size = 32
    config.period.learning_rate = 3e-3
    config.period.dim = 32
    config.period.heads = 4
    config.period.layers = 2
    config.period.notes = 16
    config.period.shortest = 4
    config.period.longest = 12
    config.period.length = 48
    config.period.test_size = 200
    # Needle: heads of two maps, signal heads a noise head, channels of a key, its noise, kinds of
    # values, the number of keys in training, and those of the tests.
    config.needle = ml_collections.ConfigDict()
    config.needle.seeds = 4
    config.needle.steps = 800
    config.needle.batch_size = 32
    config.needle.learning_rate = 6e-3
    config.needle.dim = 24
    config.needle.heads = 3
    config.needle.ratio = 3
    config.needle.noise = 0.5
    config.needle.classes = 8
    config.needle.trained = 64
    config.needle.among = (16, 64, 256)
    config.needle.test_size = 300
    # Softplus: numbers of keys and draws without training; then text of a length, tested at
    # multiples of it by the variants named. A text file; empty: the language reference that comes
    # with Python.
    config.softplus = ml_collections.ConfigDict()
    config.softplus.among = (256, 1_024, 4_096, 16_384)
    config.softplus.draws = 8
    config.softplus.text = ""
    config.softplus.text_length = 64
    config.softplus.factors = (1, 2, 4, 8)
    config.softplus.trained = ("softmax", "LSSAR p=15")
    config.softplus.seeds = 1
    config.softplus.steps = 400
    config.softplus.batch_size = 16
    config.softplus.learning_rate = 3e-3
    config.softplus.dim = 48
    config.softplus.heads = 4
    config.softplus.layers = 2
    config.softplus.test_size = 32
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset in ("full", "paper"):
        config.period.seeds = 4
        config.period.steps = 3_000
        config.needle.seeds = 8
        config.needle.steps = 4_000
        config.softplus.trained = ("softmax", "LSSA", "LSSAR p=3", "LSSAR p=15")
        config.softplus.seeds = 4
        config.softplus.steps = 3_000
    if preset == "paper":
        for settings in (config.period, config.softplus):
            settings.dim = 512
            settings.heads = 8
            settings.layers = 6
            settings.batch_size = 256
        config.period.length = 1_024
        config.softplus.text_length = 1_024
        config.softplus.test_size = 256
        config.needle.batch_size = 256
    return config
