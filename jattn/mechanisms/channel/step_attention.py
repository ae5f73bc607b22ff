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

from jattn.checks import check_count, check_shape
from jattn.mechanisms.frames.framed import framed
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.means import mean_over_space
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer


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
        check_count(name, number)
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
    space = (f"space{axis}" for axis in range(1, change.ndim - 1))
    axes = " ".join(["b", *space, "c"])
    sizes = {"c": params["up"].shape[1]}
    for name, array in (("change", change), ("x", x), ("previous", previous)):
        check_shape(name, array, axes, sizes)
    if real is not None:
        check_shape("real", real, axes.removesuffix(" c"), sizes)

    seen = jnp.concatenate(
        [mean_over_space(part, real) for part in (change, x, change - previous)], axis=-1
    )
    return jax.nn.sigmoid(linear(jax.nn.relu(linear(seen, params["down"])), params["up"]))


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
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    check_heads(dim, heads)
    hidden = dim if hidden is None else hidden
    for name, number in (("hidden", hidden), ("steps", steps), ("reduction", reduction)):
        check_count(name, number)

    def init(key):
        up, down, own = jax.random.split(key, 3)
        field = {
            "value": linear_init(up, dim, hidden),
            "output": linear_init(down, hidden, dim),
        }
        return field | step_attention_init(own, dim, reduction)

    def travel(params, x, real=None):
        end, previous = x, None
        for _ in range(steps):
            change = linear(jax.nn.relu(linear(end, params["value"])), params["output"])
            size = step_attention(params, change, end, previous, real)
            end, previous = end + size * change, change
        return end - x

    def apply(params, given):
        x = given.x
        return each(params, x) if causal else travel(params, x, given.real)

    def each(params, x):
        return travel(params, x.reshape(-1, dim)).reshape(x.shape)

    def init_state(params, batch_size, max_length, dtype):
        return ()

    def prefill(params, x, state, length):
        return each(params, x), state

    return framed(
        "step_attention",
        dim=dim,
        init=init,
        apply=apply,
        init_state=init_state if causal else None,
        prefill=prefill if causal else None,
        takes="documents" if causal else "padding",
        causal=causal,
    )


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
    equivariant=True,
    documents="causal",
    parameters=("down", "up"),
    absent=("query", "key"),
)
