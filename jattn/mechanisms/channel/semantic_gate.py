"""Adversarial attention gates (Valvano et al. 2020, arXiv 2007.01152): a segmentation that gates.

    a = softmax_c(x W + b),   y = x * sum_{c >= 1} a_c = x * (1 - a_0)

Class 0 is the background; features pass where there is anything else. The class maps are trained
to look like masks by a discriminator at every scale (`jattn.losses.segmentation`).

Distinctive: the gate is an answer at its scale, and has a loss of its own.

Limits: a background logit of -inf leaves x, of +inf nothing; two classes are a sigmoid gate.
"""

import jax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.affine import affine, affine_init
from jattn.mechanisms.mechanism import Mechanism


def class_maps(params: dict, x: Float[Array, "b *space c"]) -> Float[Array, "b *space k"]:
    """`softmax_c(x W + b)`, background first.

    Args:
        params: `classes`, affine to k numbers.
        x: tokens or images.

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"classes": {"weight": jnp.zeros((2, 4))}}
        >>> class_maps(params, jnp.ones((1, 3, 2)))[0, 0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return jax.nn.softmax(affine(params["classes"], x), axis=-1)


def semantic_gate(
    params: dict,
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
) -> Float[Array, "b *space 1"]:
    """The probability of anything but background, a factor for each place.

    Args:
        params: as for `class_maps`.
        x: tokens or images.
        real: places see themselves alone, so padding makes no difference.

    Reference:
        arXiv 2007.01152.

    Example:
        >>> import jax.numpy as jnp
        >>> semantic_gate({"classes": {"weight": jnp.zeros((2, 4))}}, jnp.ones((1, 1, 2))).tolist()
        [[[0.75]]]
    """
    return class_maps(params, x)[..., 1:].sum(-1, keepdims=True)


def make(*, dim: int, classes: int = 2) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        classes: k, background included.

    Raises:
        ValueError: fewer than two classes.

    Example:
        >>> import jax.numpy as jnp
        >>> gate = make(dim=8, classes=5)
        >>> gate.apply(gate.init(jax.random.key(0)), jnp.ones((2, 4, 5, 8))).shape
        (2, 4, 5, 8)
    """
    check_count("dim", dim)
    check_count("classes", classes, 2)
    init = lambda key: {"classes": affine_init(key, dim, classes)}
    return framed_gate("semantic_gate", dim=dim, init=init, factors=semantic_gate)


MECHANISM = Mechanism(
    name="semantic_gate",
    title="Multi-scale adversarial attention gates",
    arxiv="2007.01152",
    family="channel",
    equation="y = x * (1 - softmax_c(x W + b)_0)",
    core=semantic_gate,
    make=make,
    cost="linear",
    kind="gate",
    equivariant=True,
    parameters=("classes",),
)
