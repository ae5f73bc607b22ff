"""Pointer networks (Vinyals et al. 2015, arXiv 1506.03134).

    u_tj = v . tanh(W_key e_j + W_query d_t),  p(point at j) = softmax_j(u_tj)

A decoder's state d_t points at one of the encoder's states e_j, so what can be said grows with what
was read. Additive scores; no values are read.

Distinctive: the distribution over inputs is the output. With `stop`, a learned state stands before
the inputs, and pointing at it, index 0, ends a sequence.

Limits: v = 0 points everywhere alike; W_query = 0 points alike at every step. |u| <= sum |v|.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count, check_flag
from jattn.mechanisms.frames.kinds import framed_pointer
from jattn.mechanisms.kinds import Pointer
from jattn.mechanisms.layers.linear_maps import linear
from jattn.mechanisms.mechanism import Mechanism


def pointer_logits(
    params: dict[str, Array], query: Float[Array, "b t m"], tokens: Float[Array, "b s m"]
) -> Float[Array, "b t n"]:
    """`v . tanh(tokens key + query W)` for each pair of a query and a token.

    Args:
        params: `query` and `key` `[m, d]`, `score` `[d]`; with `stop` `[m]`, a token that stands
            before the others.
        query: the decoder's states.
        tokens: what may be pointed at.

    Returns:
        Logits, n = s, or 1 + s with `stop`.

    Reference:
        arXiv 1506.03134.

    Example:
        >>> params = {"query": jnp.eye(2), "key": jnp.eye(2), "score": jnp.array([1.0, 0.0])}
        >>> pointer_logits(params, jnp.zeros((1, 1, 2)), jnp.eye(2)[None]).round(2).tolist()
        [[[0.7599999904632568, 0.0]]]
    """
    if "stop" in params:
        stop = jnp.broadcast_to(
            params["stop"].astype(tokens.dtype), (len(tokens), 1, tokens.shape[2])
        )
        tokens = jnp.concatenate([stop, tokens], axis=1)
    asked, offered = linear(query, params["query"]), linear(tokens, params["key"])
    return jnp.tanh(asked[:, :, None] + offered[:, None]) @ params["score"].astype(query.dtype)


def make(*, dim: int, hidden: int | None = None, stop: bool = False) -> Pointer:
    """Makes the pointer; its weights start in U(-0.08, 0.08), as in the paper.

    Args:
        dim: dimension m of queries and tokens.
        hidden: dimension d in which they are compared; default m.
        stop: puts a learned token before the others, for the end of a sequence.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pointer = make(dim=8, stop=True)
        >>> params = pointer.init(jax.random.key(0))
        >>> pointer.apply(params, jnp.ones((1, 2, 8)), jnp.ones((1, 5, 8))).shape
        (1, 2, 6)
    """
    check_count("dim", dim)
    hidden = dim if hidden is None else hidden
    check_count("hidden", hidden)
    check_flag("stop", stop)
    shapes = {"query": (dim, hidden), "key": (dim, hidden), "score": (hidden,)}
    if stop:
        shapes["stop"] = (dim,)

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return {
            name: jax.random.uniform(key, shape, minval=-0.08, maxval=0.08)
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return framed_pointer("pointer_network", dim=dim, init=init, apply=pointer_logits)


MECHANISM = Mechanism(
    name="pointer_network",
    title="Pointer networks",
    arxiv="1506.03134",
    family="pointer",
    equation="u_tj = v . tanh(W_key e_j + W_query d_t), p_tj = softmax_j(u_tj)",
    core=pointer_logits,
    make=make,
    cost="linear",
    kind="pointer",
    equivariant=True,
    parameters=("query", "key", "score"),
)
