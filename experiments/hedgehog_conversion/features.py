"""Feature maps on random queries and keys: how spiky and how monotone their weights are."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hedgehog_conversion import figures
from jattn.mechanisms.linear import hedgehog
from jattn.recurrence.feature_maps import FEATURE_MAPS
from jattn.training import Claim, Paper, Run, sweep

PAPER = Paper("arXiv 2402.04347", "The Hedgehog & the Porcupine")
# Mean entropies of 64 weights, d = 16, standard deviation 1.5; 4.16 is that of equal weights.
ENTROPY = {"softmax": 2.49, "elu1": 4.12, "relu": 3.95, "softmax_dim": 4.07, "joint_softmax": 3.33}
SPEARMAN = {"elu1": 0.51, "relu": 0.57, "softmax_dim": 0.84, "exp": 0.70}
CELLS = 20  # the draws are computed in so many pieces
MAPS = ("softmax", "elu1", "relu", "softmax_dim", "joint_softmax", "exp")


def weights_of(name: str, query: jax.Array, key: jax.Array) -> jax.Array:
    """Weights `[t, s]` of queries `[t, d]` over keys `[s, d]`, rows that sum to one."""
    if name == "softmax":
        return jax.nn.softmax(query @ key.T / query.shape[-1] ** 0.5, axis=-1)
    if name in hedgehog.FEATURE_MAPS:  # untrained, of which "exp" is another than the plain one
        eye = jnp.eye(query.shape[-1])[None]
        features = partial(hedgehog.hedgehog_features, weight=eye, feature_map=name)
        phi = lambda x: features(x[None, :, None])[0, :, 0]
    else:
        phi = FEATURE_MAPS[name]
    weights = phi(query) @ phi(key).T
    return weights / weights.sum(-1, keepdims=True)


def spearman(x: jax.Array, y: jax.Array) -> jax.Array:
    """Rank correlation over the last axis."""
    ranks = [jnp.argsort(jnp.argsort(z, -1), -1).astype(jnp.float32) for z in (x, y)]
    first, second = (r - r.mean(-1, keepdims=True) for r in ranks)
    norms = jnp.linalg.norm(first, axis=-1) * jnp.linalg.norm(second, axis=-1)
    return (first * second).sum(-1) / norms


def features(run: Run, config) -> list[Claim]:
    """Entropy and rank correlation with q.k of every feature map."""
    settings = config.features

    each = max(1, settings.draws // CELLS)

    def draw(key):
        query, keys = settings.std * jax.random.normal(key, (2, settings.count, settings.dim))
        found = {}
        for name in MAPS:
            weights = weights_of(name, query, keys)
            found[f"entropy_{name}"] = jax.scipy.special.entr(weights).sum(-1).mean()
            found[f"spearman_{name}"] = spearman(weights, query @ keys.T).mean()
            found[f"weights_{name}"] = weights[0]
        return found | {"scores": (query @ keys.T)[0] / settings.dim**0.5}

    def cell(data):
        found = jax.vmap(draw)(jax.random.split(jax.random.wrap_key_data(data), each))
        one = ("weights", "scores")  # of these the first draw, for a figure
        return {n: x[0] if n.startswith(one) else x for n, x in found.items()}

    keys = jax.random.split(jax.random.key(config.seed), CELLS)
    found = sweep(run, "features", cell, list(np.asarray(jax.random.key_data(keys))))
    figures.spikes(run, found, MAPS)
    mean = {name: float(values.mean()) for name, values in found.items()}
    note = f"{each * CELLS} draws of {settings.count} keys, d = {settings.dim}"
    usual = (settings.dim, settings.count, settings.std) == (16, 64, 1.5)
    claims = [
        PAPER.claim(
            "monotone",
            "weights of Hedgehog's maps are more monotone in q.k than those of elu "
            "+ 1: rank correlation",
            mean["spearman_elu1"] + 0.2,
            mean["spearman_softmax_dim"],
            ">=",
            because="elu + 1 is this run's, and 0.2 a clear gain",
            note=note,
        ),
        PAPER.claim(
            "spiky",
            "and joint softmax features are spikier than elu + 1: mean entropy",
            mean["entropy_elu1"],
            mean["entropy_joint_softmax"],
            "<",
            because="it is that of elu + 1 in this run",
            note=note,
        ),
    ]
    if usual:
        claims += [
            PAPER.claim(
                f"{quantity}-{name}",
                f"mean {quantity} of {name} weights",
                expected,
                mean[f"{quantity}_{name}"],
                "~=",
                _slack(found[f"{quantity}_{name}"]),
                because="it is a single draw's, computed once",
                note=note,
            )
            for quantity, table in (("entropy", ENTROPY), ("spearman", SPEARMAN))
            for name, expected in table.items()
        ]
    return claims


def _slack(draws: np.ndarray) -> float:
    """Two standard deviations of a draw, which is what the expected numbers are from; and 0.01."""
    return 0.01 + 2 * float(draws.std())
