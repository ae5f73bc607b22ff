"""What can one attention layer learn? The random-features lens (Fu et al. 2023, arXiv 2307.11353).

    python -m experiments.random_feature_attention \\
        --config=configs/random_feature_attention.py:small --workdir=runs/random_feature_attention

A query and N keys on the unit sphere of R^d; targets that do not depend on the keys' order. One
layer of ReLU attention with frozen random query-key matrices and trained values (RFA) is fitted
exactly, by ridge regression, and compared with a two-layer network of random units on the tokens
put end to end (RFMLP), and with attention whose matrices have mean identity (BRFA). RFA learns
polynomials of the keys from far fewer examples than RFMLP, at a rate without N in it; the bias
helps where the target compares the query with the keys, and costs a little where it does not.

Presets (time on 2 CPU cores):
    small   d = N = 8, 300 heads, up to 1024 examples, 3 seeds: the core claims. About 2 minutes.
    full    every claim, up to 2048 examples, 5 seeds. About 10 minutes.
    paper   d = N = 16, 1000 heads, up to 4096 examples, 5 seeds. About an hour; 3.5 GB.

Nothing is trained by gradient descent. Errors are E (f - f*)^2 / Var f* at fresh points: 1 is what
the best constant gets. Each is a mean over seeds.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"sample_sizes": (64, 128, 256, 512, 1024, 1536)}, "size": {"key_count": 10}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "samples,keys,heads,interaction,kernel"
    # The problem: d coordinates, N keys; and the number of heads of the main comparison.
    config.dim = 8
    config.key_count = 8
    config.heads = 300
    # Training set sizes, rising; a smaller set is the beginning of a larger one.
    config.sample_sizes = (64, 128, 256, 512, 1024)
    config.test_size = 1_000
    # Compared as the sample grows. Of: rfa, brfa, rfmlp, rfa_kernel, brfa_kernel, rfmlp_kernel.
    config.models = ("rfa", "brfa", "rfmlp")
    config.targets = (
        "keys_1",
        "keys_2",
        "keys_3",
        "keys_4",
        "harm_3",
        "harm_4",
        "corr_1",
        "corr_2",
        "corr_3",
        "corr_4",
        "corr_only_2",
        "corr_only_4",
    )
    # Mean of BRFA's query-key matrices, in identities.
    config.bias_scale = 1.0
    # "relu" (the paper's) | "softmax".
    config.activation = "relu"
    # Ridge penalties in units of the mean squared feature, chosen on held-out fifths.
    config.ridge_grid = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    # Features that exist at a time.
    config.feature_chunk = 500
    # Independent draws of data, target directions and frozen weights.
    config.seeds = 3
    config.seed = 0
    # Study "keys": numbers of keys, at this many examples and heads.
    config.key_sweep = ml_collections.ConfigDict(dict(counts=(2, 4, 8, 16), size=1_024, heads=200))
    # Study "heads": head counts, at this many examples.
    config.head_sweep = ml_collections.ConfigDict(dict(counts=(25, 50, 100, 400), size=512))
    # Study "interaction": shares of the correlation in a mixed target, and of a rotation in its
    # interaction matrix. Small d and N, so that the target can be learnt at all.
    config.interaction = ml_collections.ConfigDict(
        dict(dim=4, key_count=4, heads=300, size=1_024, shares=(0.0, 0.25, 0.5, 0.75, 1.0))
    )
    # Study "bias": bias scales, at this many examples and heads.
    config.bias_sweep = ml_collections.ConfigDict(
        dict(scales=(0.0, 1.0, 2.0, 4.0), size=2_048, heads=400)
    )
    # Study "wide": bias at the paper's size.
    config.wide = ml_collections.ConfigDict(
        dict(dim=16, key_count=16, heads=1_000, size=2_048, seeds=3)
    )
    # Study "kernel": feature counts of the Gram matrix of so many inputs.
    config.kernel = ml_collections.ConfigDict(
        dict(dim=6, key_count=5, inputs=20, counts=(100, 1_000, 10_000), seeds=8)
    )
    config.parallel = parallel_config()
    # A cell of a sweep fills one core: compute two side by side.
    config.parallel.cpu_devices = 2

    if preset == "full":
        config.study = "all"
        config.seeds = 5
        config.sample_sizes = (64, 128, 256, 512, 1024, 2048)
        config.kernel.counts = (100, 1_000, 10_000, 100_000)
    elif preset == "paper":
        config.study = "all"
        config.seeds = 5
        config.dim = config.key_count = 16
        config.heads = 1_000
        config.sample_sizes = (128, 256, 512, 1024, 2048, 4096)
        config.models = ("rfa", "brfa", "rfmlp", "rfa_kernel", "rfmlp_kernel")
        config.head_sweep.counts = (25, 50, 100, 400, 1_600)
        config.wide.seeds = 5
        config.kernel.counts = (100, 1_000, 10_000, 100_000)
    elif preset != "small":
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    return config
