"""Retention: linear attention that forgets at a fixed rate.

Paper: Retentive Network, arXiv 2307.08621.

    S_t = gamma_h S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t / sqrt(d)

with rotary positions on queries and keys. Horizons 1 / (1 - gamma_h) are spread evenly, by their
logarithms, from 32 tokens to 512, as in the paper's first version; from five heads on they double
from head to head, as in its later ones. A single head has the longest.

Distinctive: no gate to learn; each head has its own horizon. Together with the rotation a weight
depends on the distance only, as gamma^(t-j) e^(i theta (t-j)).

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
from jattn.mechanisms.frames.recurrent_mixer import recurrent_mixer
from jattn.mechanisms.layers.heads import qkvo_init, split_qkv
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence import recur


def log_gamma(heads: int) -> np.ndarray:
    """`log(1 - 1 / horizon)` of each head, float32 `[h]`.

    Example:
        >>> [round(float(1 / -np.expm1(log))) for log in log_gamma(3)]
        [32, 128, 512]
    """
    last = max(9.0, 4.0 + heads)
    exponents = np.linspace(5.0, last, heads) if heads > 1 else np.array([last])
    return np.log1p(-(2.0**-exponents)).astype(np.float32)


def retention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    *,
    decay: Float[Array, " h"] | Float[Array, "b t h"] | None = None,
    initial_state: Float[Array, "b h d e"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair, as `recur`.
    """Retention on arrays; rotate queries and keys beforehand.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, g, d]`, g dividing h.
        value: `[b, t, g, e]`.
        decay: `log(gamma)` of each head `[h]`, <= 0, or of each token and head `[b, t, h]`; default
            `log_gamma(h)`.
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
    check_shape("decay", decay, "b t h" if decay.ndim == 3 else "h", sizes)
    return recur(
        query * sizes["d"] ** -0.5, key, value,
        decay=jnp.broadcast_to(decay, query.shape[:3]),
        initial_state=initial_state, return_state=return_state,
    )  # fmt: skip


def make(*, dim: int, heads: int, causal: bool = True) -> Mixer:
    """Retention between projections, with the paper's norm of each head and an output gate.

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
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    size = dim // heads
    if size % 2:
        raise ValueError(f"heads: expected an even dim / heads for rotation, got {dim} / {heads}")

    def init(key):
        qkvo, gate = jax.random.split(key)
        return qkvo_init(qkvo, dim, heads) | {"gate": linear_init(gate, dim, dim)}

    def inputs(params, maps, x, positions):
        query, key, value = split_qkv(maps, heads, heads)
        decay = jnp.broadcast_to(jnp.asarray(log_gamma(heads)), query.shape[:3])
        query, key = rotary(query, positions), rotary(key, positions)
        return {"query": query, "key": key, "value": value, "decay": decay}

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
    positioned=True,
    parameters=("gate",),
)
