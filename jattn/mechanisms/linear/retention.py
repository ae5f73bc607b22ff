"""Retention: linear attention that forgets at a fixed rate.

Paper: Retentive Network, arXiv 2307.08621.

    S_t = gamma_h S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t / sqrt(d),    gamma_h = 1 - 2^-(5+h)

with rotary positions on queries and keys; h = 0, 1, ... numbers the heads.

Distinctive: no gate to learn; each head has its own horizon, 32 tokens, 64, 128, ... Together with
the rotation a weight depends on the distance only, as gamma^(t-j) e^(i theta (t-j)).

Limits: gamma = 1 without rotation is linear attention with identity features, unnormalised; a
gamma that depends on the token makes it gated.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.attention.positions import rotary
from jattn.checks import check_shape
from jattn.mechanisms.linear.recurrent_mixer import recurrent_mixer
from jattn.mechanisms.mixer import Mechanism, Mixer
from jattn.mechanisms.projections import check_heads, linear, linear_init, qkvo_init, split_heads
from jattn.recurrence import recur


def log_gamma(heads: int) -> np.ndarray:
    """`log(1 - 2^-(5+h))` for heads h = 0, 1, ..., float32 `[h]`."""
    return np.log1p(-(2.0 ** -(5.0 + np.arange(heads)))).astype(np.float32)


def retention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    *,
    decay: Float[Array, " h"] | None = None,
    initial_state: Float[Array, "b h d e"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair, as `recur`.
    """Retention on arrays; rotate queries and keys beforehand.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, g, d]`, g dividing h.
        value: `[b, t, g, e]`.
        decay: `log(gamma)` of each head `[h]`, <= 0; default `log_gamma(h)`.
        initial_state: as in `recur`.
        return_state: as in `recur`.

    Returns:
        `[b, t, h, e]`; with `return_state` the pair of it and the state `[b, h, d, e]`.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 10, 2, 4))
        >>> retention(x, x, x).shape
        (1, 10, 2, 4)
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    decay = jnp.asarray(log_gamma(sizes["h"])) if decay is None else decay
    check_shape("decay", decay, "h", sizes)
    return recur(
        query * sizes["d"] ** -0.5, key, value,
        decay=jnp.broadcast_to(decay, query.shape[:3]),
        initial_state=initial_state, return_state=return_state,
    )  # fmt: skip


def make(*, dim: int, heads: int, causal: bool = True) -> Mixer:
    """Retention between projections, with the paper's norm of each head and swish gate.

    Args:
        dim: model dimension m.
        heads: heads h; m / h is even.
        causal: there is only a causal form.

    Returns:
        A `Mixer`. It uses `positions`.

    Raises:
        ValueError: sizes that do not fit.

    Example:
        >>> mixer = make(dim=8, heads=2)
        >>> params = mixer.init(jax.random.key(0))
        >>> jax.jit(mixer.apply)(params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    size = dim // heads
    if size % 2:
        raise ValueError(f"heads: expected an even dim / heads for rotation, got {dim} / {heads}")

    def init(key):
        qkvo, gate = jax.random.split(key)
        return qkvo_init(qkvo, dim, heads) | {"gate": linear_init(gate, dim, dim)}

    def inputs(params, x, positions):
        query, key, value = (
            split_heads(linear(x, params[name]), heads) for name in ("query", "key", "value")
        )
        return {"query": rotary(query, positions), "key": rotary(key, positions), "value": value}

    return recurrent_mixer(
        "retention", init=init, inputs=inputs, core=retention, dim=dim, memory=(heads, size, size)
    )


MECHANISM = Mechanism(
    name="retention",
    title="Retention (RetNet)",
    arxiv="2307.08621",
    family="linear",
    equation="S_t = gamma_h S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t / sqrt(d)",
    core=retention,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=("gate",),
)
