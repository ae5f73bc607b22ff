"""RWKV-7: a delta rule that erases at one key and writes at another, channel by channel.

Paper: RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv 2503.14456.

    S_t = diag(w_t) S_{t-1} - (a_t * r_t) (r_t^T S_{t-1})^T + k~_t v_t^T,    o_t = S_t^T q_t
    w_t = exp(-exp(-1/2) sigmoid(d_t)),  r_t = unit(xi * k_t),  k~_t = k_t * (1 + alpha (a_t - 1))

with d_t and a_t = sigmoid(..) of each token and channel, by maps of low rank, and learned vectors
xi and alpha. In its transition a diagonal and two different keys meet, as in
`jattn.recurrence.recur_low_rank`.

Distinctive: removal and replacement are apart: r_t says where to take out and a_t how much in each
channel, k~_t where to put in. It tracks states that no diagonal transition can.

Limits: a = 1 and w = 1 take out all that stood at a key of unit norm before it is written, as the
delta rule with beta = 1 does.

The recurrence, the bound of w, the maps to d (by tanh) and a (linear inside), r and k~ are the
authors' and agree with flash-linear-attention. Other than theirs are the output gate, 2 sigmoid of
one map in place of a map of low rank, a root mean square norm of each head in place of a norm with
a mean, and where w, a, xi and alpha begin. Left out of their block are token shift, in whose place
`jattn.mechanisms.combinators.short_convolution` stands, the bonus for the current token, and the
first layer's values in later ones.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.recurrent_mixer import recurrent_mixer
from jattn.mechanisms.layers.gates import horizons
from jattn.mechanisms.layers.heads import qkvo_init, split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import unit_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence import recur_low_rank

FASTEST = float(np.exp(-0.5))  # nats that a channel forgets a token at most


def rwkv7(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    decay: Float[Array, "b t h d"],
    removal: Float[Array, "b t h d"],
    rate: Float[Array, "b t h d"],
    *,
    initial_state: Float[Array, "b h d e"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair, as `recur`.
    """RWKV-7's recurrence on arrays; removal keys are brought to unit norm here.

    Args:
        query: `[b, t, h, d]`.
        key: k~, what is written at, likewise.
        value: `[b, t, h, e]`.
        decay: log w, `[b, t, h, d]`, <= 0.
        removal: what is taken out at, `[b, t, h, d]`, of any length.
        rate: a, how much of it is, `[b, t, h, d]`, in [0, 1].
        initial_state: as in `recur`.
        return_state: as in `recur`.

    Returns:
        `[b, t, h, e]`; with `return_state` the pair of it and the state `[b, h, d, e]`.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 10, 2, 4))
        >>> rwkv7(x, x, x, -jnp.ones_like(x) / 2, x, jnp.ones_like(x) / 2).shape
        (1, 10, 2, 4)
    """
    removal = unit_norm(removal)
    return recur_low_rank(
        query, key, value, read_key=removal, erase_key=rate * removal, decay=decay,
        initial_state=initial_state, return_state=return_state,
    )  # fmt: skip


def make(*, dim: int, heads: int, causal: bool = True, rank: int = 16) -> Mixer:
    """RWKV-7 between projections, with a norm of each head and an output gate.

    Args:
        dim: model dimension m.
        heads: heads h, dividing m.
        causal: there is only a causal form.
        rank: inner dimension of the maps to decays and rates.

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
    check_count("rank", rank)
    size = dim // heads

    def init(key):
        keys = jax.random.split(key, 6)
        # The share of the fastest decay that forgets over each head's horizon.
        share = np.minimum(1 / (FASTEST * horizons(heads)), 0.95)
        bias = np.repeat(np.log(share / (1 - share)), size)
        return qkvo_init(keys[0], dim, heads) | {
            "gate": linear_init(keys[1], dim, dim),
            "decay_down": linear_init(keys[2], dim, rank),
            "decay_up": linear_init(keys[3], rank, dim),
            "decay_bias": jnp.asarray(bias, jnp.float32),
            "rate_down": linear_init(keys[4], dim, rank),
            "rate_up": linear_init(keys[5], rank, dim),
            "rate_bias": jnp.zeros(dim),
            "removal": jnp.ones(dim),
            "replacement": jnp.ones(dim),
        }

    def inputs(params, maps, x, positions):
        def low_rank(name, inner):
            down, up, bias = (params[f"{name}_{part}"] for part in ("down", "up", "bias"))
            return linear(inner(linear(x, down)), up) + bias.astype(x.dtype)

        rate = jax.nn.sigmoid(low_rank("rate", lambda y: y))
        of = lambda name: params[name].astype(x.dtype)
        found = {
            "query": maps["query"],
            "key": maps["key"] * (1 + of("replacement") * (rate - 1)),
            "value": maps["value"],
            "decay": -FASTEST * jax.nn.sigmoid(low_rank("decay", jnp.tanh)),
            "removal": maps["key"] * of("removal"),
            "rate": rate,
        }
        return {name: split_heads(array, heads) for name, array in found.items()}

    return recurrent_mixer(
        "rwkv7", init=init, inputs=inputs, core=rwkv7, dim=dim, memory=(heads, size, size)
    )


MECHANISM = Mechanism(
    name="rwkv7",
    title="RWKV-7: removal and replacement apart",
    arxiv="2503.14456",
    family="linear",
    equation="S_t = diag(w_t) S_{t-1} - (a_t * r_t) (r_t^T S_{t-1})^T + k_t v_t^T,"
    "  o_t = S_t^T q_t",
    core=rwkv7,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=(
        "decay_bias", "decay_down", "decay_up", "gate", "rate_bias", "rate_down", "rate_up",
        "removal", "replacement",
    ),
)  # fmt: skip
