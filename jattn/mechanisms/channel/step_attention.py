"""Channel attention as the step size of a residual network: StepNet (arXiv 2308.09939).

    x_{t+1} = x_t + a_t f(x_t)
    a_t = sigmoid( W_2 relu( W_1 [pool f(x_t), pool x_t, pool (f(x_t) - f(x_{t-1}))] ) )

A residual block is a step of Euler's method; attention over channels makes the step depend on the
input, small where the trajectory is stiff. It mixes no tokens: it belongs around a block, and so
is not in the zoo.

Distinctive: besides the features it sees how they changed since the block before.

Limits: a = 1 is a plain residual block, a = 0 leaves x as it is; without the two other inputs it is
squeeze-and-excitation (arXiv 1709.01507). The paper's text does not fix the network; this form is
the simplest that has its inputs.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape
from jattn.mechanisms.projections import linear, linear_init


def step_attention_init(
    key: jax.Array, channels: int, reduction: int = 16
) -> dict[str, Float[Array, "..."]]:
    """Parameters `down` `[3 c, c / reduction]` and `up` `[c / reduction, c]` of `step_attention`.

    Args:
        key: a PRNG key.
        channels: c.
        reduction: by how much the hidden layer is narrower than c; it has one unit at least.

    Raises:
        ValueError: a number below 1.
    """
    for name, number in (("channels", channels), ("reduction", reduction)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    down, up = jax.random.split(key)
    hidden = max(channels // reduction, 1)
    return {
        "down": linear_init(down, 3 * channels, hidden),
        "up": linear_init(up, hidden, channels),
    }


def step_attention(
    params: dict[str, Array],
    change: Float[Array, "b *space c"],
    x: Float[Array, "b *space c"],
    previous: Float[Array, "b *space c"] | None = None,
) -> Float[Array, "b *one c"]:
    """The step size of each channel, in (0, 1).

    Args:
        params: as `step_attention_init` makes them.
        change: f(x), `[b, ..., c]`: states `[b, c]`, tokens `[b, t, c]`, images `[b, h, w, c]`.
        x: what the block was given.
        previous: the change of the block before; None for the first block, which sees 0.

    Returns:
        `[b, 1, ..., c]`, to multiply the change with.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2308.09939.

    Example:
        >>> params = step_attention_init(jax.random.key(0), 32)
        >>> images = jnp.ones((2, 8, 8, 32))
        >>> step_attention(params, images, images).shape
        (2, 1, 1, 32)
    """
    previous = change if previous is None else previous
    space = tuple(range(1, change.ndim - 1))
    axes = " ".join(["b", *(f"space{axis}" for axis in space), "c"])
    sizes = {"c": params["up"].shape[1]}
    for name, array in (("change", change), ("x", x), ("previous", previous)):
        check_shape(name, array, axes, sizes)
    pool = lambda features: features.mean(space, keepdims=True)
    seen = jnp.concatenate([pool(change), pool(x), pool(change - previous)], axis=-1)
    return jax.nn.sigmoid(linear(jax.nn.relu(linear(seen, params["down"])), params["up"]))
