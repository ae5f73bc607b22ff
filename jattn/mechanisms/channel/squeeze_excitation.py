"""Squeeze and excitation (Hu et al. 2018, arXiv 1709.01507).

    y = x * sigmoid(W_up relu(W_down mean(x)))

A channel is strengthened or weakened everywhere at once, by what all channels hold on the mean over
space; the mean goes through a layer that is `reduction` times narrower.

Distinctive: attention over channels, not tokens: nothing is mixed, and cost is linear.

Limits: with `up` zero every factor is 1/2; features that are constant in space give a gated MLP's
sigmoid gate. `step_attention`, which sees two other means besides, is this without their weights.
"""

import jax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count, check_flag
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.bottleneck import bottleneck, bottleneck_init
from jattn.mechanisms.layers.means import mean_over_space
from jattn.mechanisms.mechanism import Mechanism


def squeeze_excitation(
    params: dict[str, Array],
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
) -> Float[Array, "b *one c"]:
    """`sigmoid(relu(mean(x) down) up)`, a factor for each channel.

    Args:
        params: `down` `[c, c / reduction]` and `up` `[c / reduction, c]`; `down_bias` and `up_bias`
            where there are any.
        x: tokens `[b, t, c]` or images `[b, y, x, c]`.
        real: False where x is padding; default none is.

    Returns:
        Factors in (0, 1), with axes of space 1 long.

    Reference:
        arXiv 1709.01507.

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"down": jnp.eye(2), "up": jnp.zeros((2, 2))}
        >>> squeeze_excitation(params, jnp.ones((1, 3, 3, 2))).tolist()
        [[[[0.5, 0.5]]]]
    """
    return jax.nn.sigmoid(bottleneck(params, mean_over_space(x, real)))


def make(*, dim: int, reduction: int = 16, bias: bool = False) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        reduction: by how much the hidden layer is narrower than m; it has one unit at least.
        bias: whether both layers have biases, as MAXIM's (arXiv 2201.02973) do.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> gate = make(dim=32)
        >>> images = jnp.ones((2, 8, 8, 32))
        >>> params = gate.init(jax.random.key(0))
        >>> gate.apply(params, images).shape, gate.factors(params, images).shape
        ((2, 8, 8, 32), (2, 1, 1, 32))
    """
    check_count("dim", dim)
    check_count("reduction", reduction)
    check_flag("bias", bias)

    def init(key):
        return bottleneck_init(key, dim, reduction, bias=bias)

    return framed_gate("squeeze_excitation", dim=dim, init=init, factors=squeeze_excitation)


MECHANISM = Mechanism(
    name="squeeze_excitation",
    title="Squeeze-and-excitation networks",
    arxiv="1709.01507",
    family="channel",
    equation="y = x * sigmoid(W_up relu(W_down mean(x)))",
    core=squeeze_excitation,
    make=make,
    cost="linear",
    kind="gate",
    equivariant=True,
    parameters=("down", "up"),
)
