"""TVC: how fast a context is forgotten while a model reasons, and putting it back (2503.13360).

The forgetting curve is the loss of the answer when the context's keys are hidden from row c on, by
c. Put back, the context is pooled to a few tokens.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.lens.edits import LogitBias
from jattn.lens.methods.method import Method


def hide_after(span: Bool[Array, " s"], cut: int) -> LogitBias:
    """The edit that hides a span from all rows from `cut` on; it stays on the fused engine.

    A cut behind the last row changes nothing.
    """
    row = jnp.arange(len(span))[:, None]
    return LogitBias(jnp.where((row >= cut) & span, -jnp.inf, 0.0)[None, None, None])


def pooled(x: Float[Array, "n m"], count: int = 16) -> Float[Array, "count m"]:
    """Adaptive mean pooling of n tokens to fewer: bin i holds floor(i n/c) to ceil((i+1) n/c).

    Example:
        >>> pooled(jnp.arange(4.0)[:, None], 2)[:, 0].tolist()
        [0.5, 2.5]
    """
    check_count("count", count)
    n, index = len(x), jnp.arange(count)
    first, end = index * n // count, -(-(index + 1) * n // count)
    place = jnp.arange(n)
    inside = (place >= first[:, None]) & (place < end[:, None])
    return inside @ x / inside.sum(1, keepdims=True)


METHOD = Method(
    name="hide_after",
    title="Mitigating visual forgetting via take-along visual conditioning",
    arxiv="2503.13360",
    kind="edit",
    function=hide_after,
    example=lambda key: {"span": (jnp.arange(8) > 0) & (jnp.arange(8) < 4), "cut": 5},
    identity={"cut": 8},
)
