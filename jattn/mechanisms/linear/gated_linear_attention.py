"""Gated linear attention: each channel of the memory forgets at a rate the token decides.

Paper: Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv 2312.06635.

    S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t / sqrt(d)
    g_t = log sigmoid(W_up W_down x_t + b) / 16

Distinctive: a gate for every key channel, so that parts of the memory can be kept while others are
cleared. Dividing the logarithm by 16 makes slow forgetting the default; b begins with heads that
forget over 4096 tokens and less, each over its own number of them.

Limits: the same decay in all channels, for all tokens, is retention; g = 0 is linear attention
with identity features, unnormalised.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.mechanisms.frames.recurrent_mixer import recurrent_mixer
from jattn.mechanisms.layers.gates import horizons
from jattn.mechanisms.layers.heads import qkvo_init, split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence import recur

RANK = 16  # of the gate's projection
SLOWNESS = 16.0  # by which the gate's logarithm is divided


def gated_linear_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    decay: Float[Array, "b t h d"],
    *,
    initial_state: Float[Array, "b h d e"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair, as `recur`.
    """Gated linear attention on arrays.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, g, d]`, g dividing h.
        value: `[b, t, g, e]`.
        decay: logarithm of what each key channel keeps, `[b, t, h, d]`, <= 0.
        initial_state: as in `recur`.
        return_state: as in `recur`.

    Returns:
        `[b, t, h, e]`; with `return_state` the pair of it and the state `[b, h, d, e]`.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 10, 2, 4))
        >>> gated_linear_attention(x, x, x, jax.nn.log_sigmoid(x)).shape
        (1, 10, 2, 4)
    """
    return recur(
        query * query.shape[-1] ** -0.5, key, value,
        decay=decay, initial_state=initial_state, return_state=return_state,
    )  # fmt: skip


def make(*, dim: int, heads: int, causal: bool = True) -> Mixer:
    """Gated linear attention between projections, with the paper's norm of each head and gate.

    Args:
        dim: model dimension m.
        heads: heads h, dividing m.
        causal: there is only a causal form.

    Returns:
        A `Mixer`.

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

    def init(key):
        qkvo, gate, down, up = jax.random.split(key, 4)
        # The gate whose logarithm, divided by 16, is -1 / horizon.
        bias = -np.log(np.expm1(SLOWNESS / horizons(heads)))
        return qkvo_init(qkvo, dim, heads) | {
            "gate": linear_init(gate, dim, dim),
            "decay_down": linear_init(down, dim, RANK),
            "decay_up": linear_init(up, RANK, dim),
            "decay_bias": jnp.asarray(np.repeat(bias, size), jnp.float32),
        }

    def inputs(params, maps, x, positions):
        arrays = {name: split_heads(array, heads) for name, array in maps.items()}
        gate = linear(linear(x, params["decay_down"]), params["decay_up"]) + params["decay_bias"]
        return arrays | {"decay": split_heads(jax.nn.log_sigmoid(gate) / SLOWNESS, heads)}

    return recurrent_mixer(
        "gated_linear_attention",
        init=init,
        inputs=inputs,
        core=gated_linear_attention,
        dim=dim,
        memory=(heads, size, size),
    )


MECHANISM = Mechanism(
    name="gated_linear_attention",
    title="Gated linear attention (GLA)",
    arxiv="2312.06635",
    family="linear",
    equation="S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t / sqrt(d)",
    core=gated_linear_attention,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=("decay_bias", "decay_down", "decay_up", "gate"),
)
