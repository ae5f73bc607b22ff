"""The gated delta rule: forget by a gate, then correct.

Paper: Gated Delta Networks, arXiv 2412.06464.

    S'_t = exp(g_t) S_{t-1},    S_t = S'_t + beta_t k_t (v_t - S'_t^T k_t)^T,    o_t = S_t^T q_t
    g_t = -exp(a) softplus(w.x_t + b),    beta_t = sigmoid(u.x_t)

with queries and keys of unit norm, and a, b, w, u of each head. At first the heads forget over 4096
tokens and less, each over its own number of them: see `jattn.mechanisms.layers.gates`.

Distinctive: the gate clears the whole memory at once, which the delta rule cannot, and the delta
rule replaces single associations, which a gate cannot. The correction looks at the decayed
memory. The short convolutions of the authors' layer are left out.

Limits: g = 0 is the delta rule; an update without the prediction is retention with a gate that
depends on the token.
"""

from typing import Any

import jax
import jax.numpy as jnp
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
from jattn.recurrence import recur


def gated_delta_rule(
    query: Float[Array, "b t gq d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t gv e"],
    beta: Float[Array, "b t h"],
    decay: Float[Array, "b t h"],
    *,
    initial_state: Float[Array, "b h d e"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair, as `recur`.
    """The gated delta rule on arrays; queries and keys are brought to unit norm here.

    Args:
        query: `[b, t, gq, d]`; there are as many heads h as queries or values.
        key: `[b, t, g, d]`, g dividing h.
        value: `[b, t, gv, e]`.
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


def rates_init(key: jax.Array, dim: int, heads: int) -> dict[str, Float[Array, "..."]]:
    """Parameters of beta and of `log_decay`, of each head."""
    of_beta, of_decay = jax.random.split(key)
    step = jnp.asarray(1 / horizons(heads), jnp.float32)
    return {
        "beta": linear_init(of_beta, dim, heads),
        "decay": linear_init(of_decay, dim, heads),
        "decay_bias": step + jnp.log(-jnp.expm1(-step)),  # softplus of it is `step`
        "decay_log_rate": jnp.zeros(heads),
    }


def log_decay(params: Any, x: Float[Array, "b t m"]) -> Float[Array, "b t h"]:
    """`-exp(a) softplus(w.x + b)` of each head."""
    step = jax.nn.softplus(linear(x, params["decay"]) + params["decay_bias"])
    return -jnp.exp(params["decay_log_rate"]) * step


def make(*, dim: int, heads: int, causal: bool = True, value_heads: int | None = None) -> Mixer:
    """The gated delta rule between projections, with an output gate as in the paper.

    Args:
        dim: model dimension m.
        heads: heads of queries and keys, dividing m, of m / heads channels each.
        causal: there is only a causal form.
        value_heads: heads of values, a multiple of `heads`, of as many channels; a query and its
            key serve several of them (as in Qwen3-Next). None: as many as heads.

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
    memories = heads
    if value_heads is not None:
        check_count("value_heads", value_heads)
        memories = value_heads
        if value_heads % heads:
            raise ValueError(
                f"value_heads: expected a multiple of heads={heads}, got {value_heads}"
            )

    def init(key):
        qkvo, gate, rates = jax.random.split(key, 3)
        params = qkvo_init(qkvo, dim, heads)
        of_value, of_output = jax.random.split(jax.random.fold_in(qkvo, 1))
        if memories != heads:
            params["value"] = linear_init(of_value, dim, memories * size)
            params["output"] = linear_init(of_output, memories * size, dim)
        gate = {"gate": linear_init(gate, dim, memories * size)}
        return params | rates_init(rates, dim, memories) | gate

    def inputs(params, maps, x, positions):
        counts = {"query": heads, "key": heads, "value": memories}
        arrays = {n: split_heads(jax.nn.silu(maps[n]), count) for n, count in counts.items()}
        beta = jax.nn.sigmoid(linear(x, params["beta"]))
        return arrays | {"beta": beta, "decay": log_decay(params, x)}

    return recurrent_mixer(
        "gated_delta_rule",
        init=init,
        inputs=inputs,
        core=gated_delta_rule,
        dim=dim,
        memory=(memories, size, size),
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
