"""The delta rule: a memory that corrects what it would have answered.

Paper: Parallelizing Linear Transformers with the Delta Rule, arXiv 2406.06484; the rule itself in
linear transformers: arXiv 2102.11174.

    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T,    o_t = S_t^T q_t

where keys and queries have unit norm and beta_t = sigmoid(w.x_t), one a head.

Distinctive: writing to a key replaces what is stored there, so associations can be overwritten,
and nearly parallel keys interfere less than in linear attention. The short convolutions of the
authors' layer are left out.

Limits: with orthonormal keys and beta = 1 it is linear attention with identity features, which it
also approaches, up to the factor beta, as beta -> 0.
"""

from typing import Any

import jax
from jaxtyping import Array, Float

from jattn.mechanisms.frames.recurrent_mixer import recurrent_mixer
from jattn.mechanisms.layers.heads import qkvo_init, split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import unit_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence import recur


def delta_rule(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    beta: Float[Array, "b t h"],
    *,
    decay: Float[Array, "b t h"] | None = None,
    initial_state: Float[Array, "b h d e"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair, as `recur`.
    """The delta rule on arrays; queries and keys are brought to unit norm here.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, g, d]`, g dividing h.
        value: `[b, t, g, e]`.
        beta: strength of writing, `[b, t, h]`, in [0, 1].
        decay: as in `recur`; None forgets nothing, as in the paper.
        initial_state: as in `recur`.
        return_state: as in `recur`.

    Returns:
        `[b, t, h, e]`; with `return_state` the pair of it and the state `[b, h, d, e]`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (1, 10, 2, 4))
        >>> delta_rule(x, x, x, jnp.ones((1, 10, 2))).shape
        (1, 10, 2, 4)
    """
    return recur(
        unit_norm(query), unit_norm(key), value,
        beta=beta, decay=decay, initial_state=initial_state, return_state=return_state,
    )  # fmt: skip


def make(*, dim: int, heads: int, causal: bool = True) -> Mixer:
    """The delta rule between projections; SiLU on queries, keys and values as in the paper.

    Args:
        dim: model dimension m.
        heads: heads h, dividing m.
        causal: there is only a causal form.

    Returns:
        A `Mixer`.

    Raises:
        ValueError: sizes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> mixer = make(dim=8, heads=2)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    size = dim // heads

    def init(key):
        qkvo, beta = jax.random.split(key)
        return qkvo_init(qkvo, dim, heads) | {"beta": linear_init(beta, dim, heads)}

    def inputs(params, maps, x, positions):
        arrays = {name: split_heads(jax.nn.silu(array), heads) for name, array in maps.items()}
        return arrays | {"beta": jax.nn.sigmoid(linear(x, params["beta"]))}

    return recurrent_mixer(
        "delta_rule", init=init, inputs=inputs, core=delta_rule, dim=dim, memory=(heads, size, size)
    )


MECHANISM = Mechanism(
    name="delta_rule",
    title="Delta rule (DeltaNet)",
    arxiv="2406.06484",
    family="linear",
    equation="S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T,  o_t = S_t^T q_t",
    core=delta_rule,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=("beta",),
)
