"""AAI: heads by the patterns of their maps, and a boost between spans (Findings of EACL 2026).

With M = A > threshold the strong cells, each rate is the share of them whose neighbour is strong:

    diagonal  |M & M moved by (1, 1)| / |M|     vertical  by one row     horizontal  by one column

Heads with diagonal patterns reason; between a rule's reference and its definition they get a bias
of the median of their own scaled products there.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.lens.edits import LogitBias
from jattn.lens.methods.method import Method, example_maps


def pattern_rates(
    probs: Float[Array, "*heads t s"], threshold: float = 0.04
) -> dict[str, Float[Array, "*heads"]]:
    """Rates in [0, 1]; 0 where nothing is strong. What would wrap around the edge is dropped.

    Example:
        >>> found = pattern_rates(jnp.eye(4))
        >>> float(found["diagonal"]), float(found["vertical"])
        (0.75, 0.0)
    """
    strong = probs > threshold
    count = jnp.maximum(strong.sum((-2, -1)), 1)
    both = lambda a, b: (a & b).sum((-2, -1)) / count
    return {
        "diagonal": both(strong[..., 1:, 1:], strong[..., :-1, :-1]),
        "vertical": both(strong[..., 1:, :], strong[..., :-1, :]),
        "horizontal": both(strong[..., :, 1:], strong[..., :, :-1]),
    }


def span_products(
    logits: Float[Array, "L h t s"], rows: Bool[Array, " t"], keys: Bool[Array, " s"]
) -> Float[Array, "L h"]:
    """Median of the scaled products of each head between two spans."""
    cells = jnp.where(rows[:, None] & keys, logits, jnp.nan)
    return jnp.nanmedian(cells, axis=(-2, -1))


def span_bias(
    heads: Bool[Array, "L h"],
    rows: Bool[Array, " t"],
    keys: Bool[Array, " s"],
    value: Float[Array, "L h"],
) -> LogitBias:
    """The edit that adds a value a head between two spans; it stays on the fused engine."""
    added = jnp.where(heads, value, 0.0)[:, None, :, None, None]
    return LogitBias(added * (rows[:, None] & keys))


METHOD = Method(
    name="pattern_rates",
    title="Attention-aware intervention for logical reasoning",
    arxiv=None,
    kind="readout",
    function=pattern_rates,
    example=lambda key: {"probs": example_maps(key, 2, 3, 8, 8)},
    bounds=(0.0, 1.0),
)
