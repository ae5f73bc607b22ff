"""Bias and variance in one dimension, where an expansion tells both, and in two: K1 to K5."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.power_law import exponent
from experiments.test_time_regression import figures
from experiments.test_time_regression.common import CLASSICAL, claim_of, over, seeds_of
from jattn.theory import regression_layers as layers
from jattn.training import Claim, Run, sweep

FITS = {"constant": "softmax", "linear": "local linear"}
PLACES = {"boundary": 0.0, "inside": 0.45}
NARROW = tuple(0.02 * 2 ** (i / 2) for i in range(5))  # bandwidths of the expansion
SECTION = "section 3.2"
# Powers of the number of pairs, by the dimension of keys: the boundary is what softmax is slow for.
RATES = {d: {"constant": -3 / (d + 3), "linear": -4 / (d + 4)} for d in (1, 2)}
NO_RIDGE = 1e-9  # far below the variance of keys within any bandwidth


def weights_of(fit: str, query, key, scores):
    """Weights of a local fit with these scores."""
    if fit == "constant":
        return layers.local_constant(scores)
    return layers.local_linear(query, key, scores, ridge=NO_RIDGE)


def expansion(run: Run):
    """Bias at a boundary and inside, on an even grid of many keys; exp is the law."""
    n = 4_000

    def biases(bandwidth):
        key = (jnp.arange(n)[:, None] + 0.5) / n
        query = jnp.asarray(list(PLACES.values()))[:, None]
        scores = layers.gaussian_scores(query, key, bandwidth=bandwidth)
        centred = jnp.expm1(key - query[:, None])[..., 0]  # exp(k) - exp(q) over exp(q), exactly
        return {fit: (weights_of(fit, query, key, scores) * centred).sum(-1) for fit in FITS}

    return sweep(run, "expansion", biases, [np.float32(h) for h in NARROW])


def law(x):
    """A smooth function that is steep at both ends of each axis, `[n, d] -> [n]`."""
    return jnp.sum(jnp.sin(2 * jnp.pi * x) + 2 * x, axis=-1)


def error_by_pairs(run: Run, config, sizes, dim: int):
    """Expected error of each fit, by pairs and bandwidth; mean over queries in all of [0, 1]^d."""
    most, side = max(sizes.pairs), (101, 21)[dim - 1]

    def errors(seed):
        axes = [jnp.linspace(0.0, 1.0, side)] * dim
        query = jnp.stack(jnp.meshgrid(*axes), -1).reshape(-1, dim)
        drawn = jax.random.uniform(jax.random.key(seed), (most, dim))

        def of(weights, key):
            found = layers.bias_and_variance(
                weights, law(key)[:, None], law(query)[:, None], noise_variance=sizes.noise**2
            )
            return jnp.stack([found.bias.mean(), found.variance.mean()])

        def at(pairs):
            key = drawn[:pairs]

            def fitted(fit):
                def one(bandwidth):
                    scores = layers.gaussian_scores(query, key, bandwidth=bandwidth)
                    return of(weights_of(fit, query, key, scores), key)

                return over(one, sizes.bandwidths)

            everywhere = layers.local_linear(query, key, 0 * query @ key.T, ridge=NO_RIDGE)
            return {fit: fitted(fit) for fit in FITS} | {"line": of(everywhere, key)}

        found = [at(pairs) for pairs in sizes.pairs]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    name = "error_by_pairs" if dim == 1 else f"error_by_pairs_{dim}"
    return sweep(run, name, errors, seeds_of(config))


def plane(run: Run, config) -> list[Claim]:
    """How fast errors fall with the number of pairs where keys have two dimensions."""
    sizes = config.plane
    pairs = list(sizes.pairs)
    mean = {fit: x.mean(0) for fit, x in error_by_pairs(run, config, sizes, 2).items()}
    best = {fit: mean[fit].sum(-1) for fit in FITS}
    chosen = {fit: [sizes.bandwidths[i] for i in error.argmin(1)] for fit, error in best.items()}
    least = {fit: error.min(1) for fit, error in best.items()}
    errors, powers = ({FITS[fit]: x[fit] for fit in FITS} for x in (least, RATES[2]))
    figures.error_by_pairs(run, pairs, errors, powers, 2)
    said = {fit: ", ".join(f"{h:.3f}" for h in chosen[fit]) for fit in FITS}
    return [
        CLASSICAL.claim("K5-linear", "local linear in two dimensions: error falls like pairs to "
                        "this power", RATES[2]["linear"],
                        float(exponent(pairs, least["linear"])), "~=", 0.1,
                        where=SECTION, note=f"bandwidths {said['linear']}"),
        CLASSICAL.claim("K5-constant", "softmax in two dimensions: error falls like pairs to this "
                        "power, for the sake of the boundary", RATES[2]["constant"],
                        float(exponent(pairs, least["constant"])), "~=", 0.1, where=SECTION,
                        note=f"bandwidths {said['constant']}"),
    ]  # fmt: skip


def kernels(run: Run, config) -> list[Claim]:
    """The expansion, and how fast errors fall with the number of pairs."""
    biases = expansion(run)
    claims, curves = [], {}
    for i, place in enumerate(PLACES):
        for fit, name in FITS.items():
            terms = layers.leading_terms(fit, boundary=place == "boundary")
            size = np.abs(biases[fit][:, i])  # exp is its own derivative of every order
            expected = abs(terms.bias) * np.asarray(NARROW) ** terms.order
            curves[place, name] = size, expected
            claims += [
                claim_of(f"K1-{fit}-{place}", f"{name}, {place}: bias is of this order in the "
                         "bandwidth", terms.order, float(exponent(NARROW, size)), "~=", 0.1,
                         where=f"and {CLASSICAL.source(SECTION)}"),
                CLASSICAL.claim(f"K2-{fit}-{place}", f"{name}, {place}: bias over its leading term",
                                1.0, size[0] / expected[0], "~=", 0.1, where=SECTION,
                                note=f"at bandwidth {NARROW[0]}"),
            ]  # fmt: skip
    figures.bias_by_bandwidth(run, NARROW, curves)

    found = error_by_pairs(run, config, config.kernels, 1)
    pairs, sizes = list(config.kernels.pairs), config.kernels
    mean = {fit: values.mean(0) for fit, values in found.items()}  # over seeds
    best = {fit: mean[fit].sum(-1).min(1) for fit in FITS}
    line = mean["line"].sum(-1)
    errors, powers = ({FITS[fit]: x[fit] for fit in FITS} for x in (best, RATES[1]))
    figures.error_by_pairs(run, pairs, errors | {"one line": line}, powers, 1)
    middle = len(pairs) // 2
    chosen = {FITS[fit]: mean[fit][middle] for fit in FITS}
    figures.bias_and_variance(run, sizes.bandwidths, chosen, pairs[middle])
    ratio = best["linear"] / best["constant"]
    note = f"{pairs[0]} to {pairs[-1]} pairs, {config.seeds} seeds, the best bandwidth of each"
    return [
        *claims,
        CLASSICAL.claim("K3-linear", "local linear: error falls like pairs to this power",
                        RATES[1]["linear"], float(exponent(pairs, best["linear"])), "~=", 0.1,
                        where=SECTION, note=note),
        CLASSICAL.claim("K3-constant", "softmax: error falls like pairs to this power, for the "
                        "sake of the boundary", RATES[1]["constant"],
                        float(exponent(pairs, best["constant"])), "~=", 0.1, where=SECTION,
                        note=note),
        claim_of("K3-line", "one line for all: error stays as pairs grow", 0.0,
                 float(exponent(pairs, line)), "~=", 0.1, derived=True, note=note),
        claim_of("K4", "local linear errs less than softmax at every number of pairs (the largest "
                 "ratio)", 1.0, ratio.max(), "<", None, note=note),
    ]  # fmt: skip
