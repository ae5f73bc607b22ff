"""The gated delta rule: forget by a gate, then correct.

Paper: Gated Delta Networks, arXiv 2412.06464.

    S'_t = exp(g_t) S_{t-1},    S_t = S'_t + beta_t k_t (v_t - S'_t^T k_t)^T,    o_t = S_t^T q_t
    g_t = -exp(a) softplus(w.x_t + b),    beta_t = sigmoid(u.x_t)

with queries and keys of unit norm, and a, b, w, u of each head.

Distinctive: the gate clears the whole memory at once, which the delta rule cannot, and the delta
rule replaces single associations, which a gate cannot. The correction looks at the decayed
memory. The short convolutions of the authors' layer are left out.

Limits: g = 0 is the delta rule; an update without the prediction is retention with a gate that
depends on the token.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.mechanisms.linear.recurrent_mixer import recurrent_mixer, unit_norm
from jattn.mechanisms.mixer import Mechanism, Mixer
from jattn.mechanisms.projections import check_heads, linear, linear_init, qkvo_init, split_heads
from jattn.recurrence import recur


def gated_delta_rule(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    beta: Float[Array, "b t h"],
    decay: Float[Array, "b t h"],
    *,
    initial_state: Float[Array, "b h d e"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair, as `recur`.
    """The gated delta rule on arrays; queries and keys are brought to unit norm here.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, g, d]`, g dividing h.
        value: `[b, t, g, e]`.
        beta: strength of writing, `[b, t, h]`, in [0, 1].
        decay: logarithm of what is kept, `[b, t, h]`, <= 0.
        initial_state: as in `recur`.
        return_state: as in `recur`.

    Returns:
        `[b, t, h, e]`; with `return_state` the pair of it and the state `[b, h, d, e]`.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 10, 2, 4))
        >>> gated_delta_rule(x, x, x, jnp.ones((1, 10, 2)), -jnp.ones((1, 10, 2))).shape
        (1, 10, 2, 4)
    """
    return recur(
        unit_norm(query), unit_norm(key), value,
        decay=decay, beta=beta, initial_state=initial_state, return_state=return_state,
    )  # fmt: skip


def make(*, dim: int, heads: int, causal: bool = True) -> Mixer:
    """The gated delta rule between projections, with an output gate as in the paper.

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
        >>> params = mixer.init(jax.random.key(0))
        >>> jax.jit(mixer.apply)(params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    size = dim // heads

    def init(key):
        keys = jax.random.split(key, 6)
        # At first the gates of the heads forget over about 1 to 1000 tokens (those of Mamba-2).
        rate = jax.random.uniform(keys[4], (heads,), minval=1.0, maxval=16.0)
        step = jnp.exp(
            jax.random.uniform(keys[5], (heads,), minval=np.log(1e-3), maxval=np.log(0.1))
        )
        return qkvo_init(keys[0], dim, heads) | {
            "beta": linear_init(keys[1], dim, heads),
            "gate": linear_init(keys[2], dim, dim),
            "decay": linear_init(keys[3], dim, heads),
            "decay_bias": step + jnp.log(-jnp.expm1(-step)),  # softplus of it is `step`
            "decay_log_rate": jnp.log(rate),
        }

    def inputs(params, x, positions):
        arrays = {
            name: split_heads(jax.nn.silu(linear(x, params[name])), heads)
            for name in ("query", "key", "value")
        }
        step = jax.nn.softplus(linear(x, params["decay"]) + params["decay_bias"])
        decay = -jnp.exp(params["decay_log_rate"]) * step
        return arrays | {"beta": jax.nn.sigmoid(linear(x, params["beta"])), "decay": decay}

    return recurrent_mixer(
        "gated_delta_rule",
        init=init,
        inputs=inputs,
        core=gated_delta_rule,
        dim=dim,
        memory=(heads, size, size),
    )


MECHANISM = Mechanism(
    name="gated_delta_rule",
    title="Gated delta rule (Gated DeltaNet)",
    arxiv="2412.06464",
    family="linear",
    equation="S' = a_t S_{t-1},  S_t = S' + beta_t k_t (v_t - S'^T k_t)^T,  o_t = S_t^T q_t",
    core=gated_delta_rule,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=("beta", "decay", "decay_bias", "decay_log_rate", "gate"),
)
