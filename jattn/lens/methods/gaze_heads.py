"""Gaze heads: a few heads look where the model is to read, and can be turned (arXiv 2606.14703).

With questions about regions k = 1 .. K of the context, a head's gaze[k, r] is its weight from the
last row on region r, and its score the mean of gaze[k, k]. Turning adds +b to the logits of the
target's keys and -b to those of the other regions, in all rows. Regions are panels of a comic
there; here they are spans.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.lens.edits import LogitBias
from jattn.lens.methods.method import Method, example_maps


def gaze(
    last_row: Float[Array, "*heads s"], regions: Bool[Array, "r s"]
) -> Float[Array, "*heads r"]:
    """Weight of a row on each region; they sum to at most 1."""
    return jnp.einsum("...s,rs->...r", last_row, regions.astype(last_row.dtype))


def gaze_scores(
    last_rows: Float[Array, "k L h s"], regions: Bool[Array, "k k_too s"]
) -> Float[Array, "L h"]:
    """Mean over questions of the weight on the region that is asked for.

    Args:
        last_rows: of the question about each region.
        regions: of each question, its K regions.
    """
    found = jax.vmap(gaze)(last_rows, regions)  # [k, L, h, r]
    return jnp.einsum("klhk->lh", found) / len(found)


def steer_to(
    heads: Bool[Array, "L h"],
    target: Bool[Array, " s"],
    others: Bool[Array, " s"],
    strength: float = 1e4,
) -> LogitBias:
    """The edit that turns heads to a region; it stays on the fused engine."""
    bias = strength * (target.astype(jnp.float32) - others.astype(jnp.float32))
    return LogitBias(jnp.where(heads[:, None, :, None, None], bias, 0.0))


def _example(key):
    rows = example_maps(key, 3, 2, 4, 8, 8)[..., -1, :]
    regions = jnp.arange(8) // 3 == jnp.arange(3)[:, None]
    return dict(last_rows=rows, regions=jnp.broadcast_to(regions, (3, 3, 8)))


METHOD = Method(
    name="gaze_scores",
    title="Gaze heads",
    arxiv="2606.14703",
    kind="readout",
    function=gaze_scores,
    example=_example,
    bounds=(0.0, 1.0),
)
