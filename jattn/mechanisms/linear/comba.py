"""Comba: the delta rule with a feedback of another strength than what it writes.

Paper: Comba: Improving Bilinear RNNs with Closed-loop Control, arXiv 2506.02475.

    S_t = exp(g_t) S_{t-1} + beta_t k_t (v_t - b S_{t-1}^T k_t)^T
    o_t = S_t^T (q_t - c k_t)

with queries and keys of unit norm, g and beta as in the gated delta rule, and of each head b in
(0, 1), how much of what is stored is fed back, and c, what of the token's own key is taken from its
query.

Distinctive: closed-loop control, of the state by the feedback b and of the output by c. Its
transition is a scalar plus a matrix of rank one: what is fed back is read before the state decays,
where the gated delta rule reads after it. What is erased and what is written need not weigh the
same: the erase key of `jattn.recur` is b k, divided by the decay.

Limits: b = 1, c = 0 and no decay is the delta rule; b = exp(g) and c = 0 is the gated delta rule;
b = 0 writes without looking, with a gate a head.

The equations are the paper's. Its authors' layer in flash-linear-attention takes c b k from the
query in place of c k, before norms, and brings b k to unit norm again, by which b is lost; here it
is kept. c begins at 0.02, which they advise for small models. Their short convolutions are
`jattn.mechanisms.combinators.short_convolution`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.mechanisms.frames.recurrent_mixer import recurrent_mixer
from jattn.mechanisms.layers.heads import qkvo_init, split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import unit_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.linear.gated_delta_rule import log_decay, rates_init
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence import recur
from jattn.recurrence.low_rank import before_decay

FEEDBACK, CORRECTION = 0.95, 0.02  # where b and c begin


def comba(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    beta: Float[Array, "b t h"],
    decay: Float[Array, "b t h"],
    feedback: Float[Array, " h"],
    correction: Float[Array, " h"],
    *,
    initial_state: Float[Array, "b h d e"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair, as `recur`.
    """Comba on arrays; queries and keys are brought to unit norm here.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, h, d]`.
        value: `[b, t, h, e]`.
        beta: strength of writing, `[b, t, h]`, in [0, 1].
        decay: logarithm of what is kept, `[b, t, h]`, <= 0.
        feedback: b, `[h]`, in [0, 1].
        correction: c, `[h]`.
        initial_state: as in `recur`.
        return_state: as in `recur`.

    Returns:
        `[b, t, h, e]`; with `return_state` the pair of it and the state `[b, h, d, e]`.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 10, 2, 4))
        >>> one = jnp.ones((1, 10, 2))
        >>> comba(x, x, x, one, -one, jnp.ones(2), jnp.zeros(2)).shape
        (1, 10, 2, 4)
    """
    query, key = unit_norm(query), unit_norm(key)
    fed_back = before_decay(feedback[:, None].astype(key.dtype) * key, decay)
    return recur(
        query - correction[:, None].astype(key.dtype) * key, key, value,
        decay=decay, beta=beta, erase_key=fed_back,
        initial_state=initial_state, return_state=return_state,
    )  # fmt: skip


def make(*, dim: int, heads: int, causal: bool = True) -> Mixer:
    """Comba between projections, with an output gate.

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
        qkvo, gate, rates = jax.random.split(key, 3)
        own = {"gate": linear_init(gate, dim, dim), "correction": jnp.full(heads, CORRECTION)}
        own["feedback"] = jnp.full(heads, jnp.log(FEEDBACK / (1 - FEEDBACK)))
        return qkvo_init(qkvo, dim, heads) | rates_init(rates, dim, heads) | own

    def inputs(params, maps, x, positions):
        arrays = {name: split_heads(jax.nn.silu(array), heads) for name, array in maps.items()}
        return arrays | {
            "beta": jax.nn.sigmoid(linear(x, params["beta"])),
            "decay": log_decay(params, x),
            "feedback": jax.nn.sigmoid(params["feedback"]),
            "correction": params["correction"],
        }

    return recurrent_mixer(
        "comba", init=init, inputs=inputs, core=comba, dim=dim, memory=(heads, size, size)
    )


MECHANISM = Mechanism(
    name="comba",
    title="Comba: a delta rule with feedback of its own strength",
    arxiv="2506.02475",
    family="linear",
    equation="S_t = a_t S_{t-1} + beta_t k_t (v_t - b S_{t-1}^T k_t)^T,"
    "  o_t = S_t^T (q_t - c k_t)",
    core=comba,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=(
        "beta", "correction", "decay", "decay_bias", "decay_log_rate", "feedback", "gate",
    ),
)  # fmt: skip
