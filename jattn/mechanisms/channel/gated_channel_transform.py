"""Gated channel transformation, GCT (Yang et al. 2019, arXiv 1909.11519).

    e_c = alpha_c |x_c|,   y_c = x_c (1 + tanh(gamma_c e_c / rms(e) + beta_c))

A channel's length over space, relative to those of the others, strengthens or weakens it; so
channels compete (gamma < 0) or go together (gamma > 0).

Distinctive: three numbers a channel, and it begins as the identity: gamma = beta = 0.

Limits: all alphas times a number change nothing, but for eps. rms(e) is |e| / sqrt(m), as written
in the paper.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.mechanism import Mechanism

EPSILON = 1e-5


def gated_channel_transform(
    params: dict[str, Array],
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
) -> Float[Array, "b *one c"]:
    """`1 + tanh(gamma e / rms(e) + beta)`, a factor for each channel.

    Args:
        params: `alpha`, `beta`, `gamma`, each `[c]`.
        x: tokens `[b, t, c]` or images `[b, y, x, c]`.
        real: False where x is padding; default none is.

    Returns:
        Factors in (0, 2), with axes of space 1 long.

    Reference:
        arXiv 1909.11519.

    Example:
        >>> params = {"alpha": jnp.ones(2), "beta": jnp.zeros(2), "gamma": jnp.zeros(2)}
        >>> gated_channel_transform(params, jnp.ones((1, 4, 2))).tolist()
        [[[1.0, 1.0]]]
    """
    space = tuple(range(1, x.ndim - 1))
    clean = x if real is None else jnp.where(real[..., None], x, 0)
    wide = clean.astype(jnp.promote_types(x.dtype, jnp.float32))
    length = jnp.sqrt((wide**2).sum(space, keepdims=True) + EPSILON)
    embedded = params["alpha"] * length
    relative = embedded * lax.rsqrt((embedded**2).mean(-1, keepdims=True) + EPSILON)
    return (1 + jnp.tanh(params["gamma"] * relative + params["beta"])).astype(x.dtype)


def make(*, dim: int) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> import jax
        >>> gate = make(dim=8)
        >>> x = jnp.ones((2, 6, 8))
        >>> (gate.apply(gate.init(jax.random.key(0)), x) == x).all().item()
        True
    """
    check_count("dim", dim)

    def init(key):
        return {"alpha": jnp.ones(dim), "beta": jnp.zeros(dim), "gamma": jnp.zeros(dim)}

    return framed_gate(
        "gated_channel_transform", dim=dim, init=init, factors=gated_channel_transform
    )


MECHANISM = Mechanism(
    name="gated_channel_transform",
    title="Gated channel transformation",
    arxiv="1909.11519",
    family="channel",
    equation="y_c = x_c (1 + tanh(gamma_c e_c / rms(e) + beta_c)), e_c = alpha_c |x_c|",
    core=gated_channel_transform,
    make=make,
    cost="linear",
    kind="gate",
    equivariant=True,
    parameters=("alpha", "beta", "gamma"),
    idle=("alpha",),
)
