"""Channel attention as the step size of a residual network: StepNet (arXiv 2308.09939).

    x_{t+1} = x_t + a_t f(x_t)
    a_t = sigmoid( W_2 relu( W_1 [pool f(x_t), pool x_t, pool (f(x_t) - f(x_{t-1}))] ) )

A residual block is a step of Euler's method; attention over channels makes the step depend on the
input, small where the trajectory is stiff. Tokens do not attend to each other: they are pooled. A
causal one looks at itself alone.

Distinctive: besides the features it sees how they changed since the block before. As a mixer it
is the change over a few steps of one field, f(x) = W_output relu(W_value x).

Limits: a = 1 is a plain residual block, a = 0 leaves x as it is; without the two other inputs it is
squeeze-and-excitation (arXiv 1709.01507). The paper's text does not fix the network; this form is
the simplest that has its inputs.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_shape
from jattn.mechanisms import projections as p
from jattn.mechanisms.mixer import Mechanism, Mixer


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
        "down": p.linear_init(down, 3 * channels, hidden),
        "up": p.linear_init(up, hidden, channels),
    }


def step_attention(
    params: dict[str, Array],
    change: Float[Array, "b *space c"],
    x: Float[Array, "b *space c"],
    previous: Float[Array, "b *space c"] | None = None,
    real: Bool[Array, " b *space"] | None = None,
) -> Float[Array, "b *one c"]:
    """The step size of each channel, in (0, 1).

    Args:
        params: as `step_attention_init` makes them.
        change: f(x), `[b, ..., c]`: states `[b, c]`, tokens `[b, t, c]`, images `[b, h, w, c]`.
        x: what the block was given.
        previous: the change of the block before; None for the first block, which sees 0.
        real: False where the space is padding, which is not pooled; default none is.

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
    if real is not None:
        check_shape("real", real, axes.removesuffix(" c"), sizes)

    def pool(features):
        if real is None:
            return features.mean(space, keepdims=True)
        there = real[..., None]
        number = jnp.maximum(there.sum(space, keepdims=True), 1).astype(features.dtype)
        return jnp.where(there, features, 0).sum(space, keepdims=True) / number

    seen = jnp.concatenate([pool(change), pool(x), pool(change - previous)], axis=-1)
    return jax.nn.sigmoid(p.linear(jax.nn.relu(p.linear(seen, params["down"])), params["up"]))


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    hidden: int | None = None,
    reduction: int = 16,
    steps: int = 2,
) -> Mixer:
    """Makes the mixer: how far `steps` steps with a common field lead away from x.

    Args:
        dim: model dimension m.
        heads: there are none; a divisor of m, as everywhere.
        causal: each token makes its own steps; else they are of the mean over tokens.
        hidden: inner dimension of the field; default m.
        reduction: as in `step_attention_init`.
        steps: how many.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4, causal=True)
        >>> params = mixer.init(jax.random.key(0))
        >>> jax.jit(mixer.apply)(params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    p.check_heads(dim, heads)
    hidden = dim if hidden is None else hidden
    for name, number in (("hidden", hidden), ("steps", steps)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")

    def init(key):
        up, down, own = jax.random.split(key, 3)
        field = {
            "value": p.linear_init(up, dim, hidden),
            "output": p.linear_init(down, hidden, dim),
        }
        return field | step_attention_init(own, dim, reduction)

    def travel(params, x, real=None):
        end, previous = x, None
        for _ in range(steps):
            change = p.linear(jax.nn.relu(p.linear(end, params["value"])), params["output"])
            size = step_attention(params, change, end, previous, real)
            end, previous = end + size * change, change
        return end - x

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        p.no_context("step_attention", context)
        p.check_tokens(dim, x, None, positions)
        real = p.padding(mask, *x.shape[:2])
        if causal:
            return travel(params, x.reshape(-1, dim)).reshape(x.shape)
        return travel(params, x, real)

    def init_state(params, batch_size, max_length):
        return ()

    def step(params, x, state):
        return travel(params, x), state

    return Mixer(init, apply, init_state, step) if causal else Mixer(init, apply)


MECHANISM = Mechanism(
    name="step_attention",
    title="Self-attention as a stiffness-aware step size (StepNet)",
    arxiv="2308.09939",
    family="channel",
    equation="x_{t+1} = x_t + sigmoid(W_2 relu(W_1 [f_t, x_t, f_t - f_{t-1}])) f(x_t)",
    core=step_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=("down", "up"),
    absent=("query", "key"),
)
