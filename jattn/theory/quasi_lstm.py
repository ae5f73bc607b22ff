"""The quasi-LSTM: an LSTM whose gates do not read its state, hence a linear recurrence.

    gate, x = split(u W_in);   x = causal depthwise convolution of x over 4 tokens
    f, i, o = split(x W_gates + b)
    h_t = a_t h_{t-1} + sigmoid(i_t) x_t,   a = sigmoid(f)  or  sigmoid(-f)^relu(alpha), "reversed"
    y = (gelu(gate) * sigmoid(o) * h) W_out

The reversed gate is the S6 decay: exp(-softplus(f)) = sigmoid(-f), to a learnt power.

Reference: arXiv 2405.15731, section 5.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape
from jattn.mechanisms.projections import linear_init
from jattn.recurrence import recur

EXPANSION, TAPS = 2, 4


class Parameters(NamedTuple):
    """Weights; the hidden width is c = 2 m.

    Attributes:
        input: `[m, 2 c]`.
        convolution: one filter a channel, the last tap for the current token, `[taps, c]`.
        convolution_bias: `[c]`.
        gates: `[c, 3 c]`.
        gates_bias: `[3 c]`.
        output: `[c, m]`.
        alpha: power of the reversed gate, a scalar.
    """

    input: Float[Array, "m cc"]
    convolution: Float[Array, "taps c"]
    convolution_bias: Float[Array, " c"]
    gates: Float[Array, "c ccc"]
    gates_bias: Float[Array, " ccc"]
    output: Float[Array, "c m"]
    alpha: Float[Array, ""]


def init(key: jax.Array, dim: int) -> Parameters:
    """Random weights: projections N(0, 1/fan_in); the filter uniform; alpha = 1.

    Args:
        key: PRNG key.
        dim: model dimension m.

    Example:
        >>> init(jax.random.key(0), 4).gates.shape
        (8, 24)
    """
    width = EXPANSION * dim
    keys = jax.random.split(key, 6)
    normal = lambda key, n, m: jax.random.normal(key, (n, m)) * n**-0.5
    return Parameters(
        normal(keys[0], dim, 2 * width),
        linear_init(keys[1], TAPS, width),
        linear_init(keys[2], TAPS, width)[0],
        normal(keys[3], width, 3 * width),
        linear_init(keys[4], width, 3).reshape(-1),
        normal(keys[5], width, dim),
        jnp.ones(()),
    )


def apply(
    params: Parameters, u: Float[Array, "b t m"], *, reversed_gate: bool = False
) -> Float[Array, "b t m"]:
    """Mixes tokens; see the module's docstring.

    Args:
        params: the weights.
        u: tokens `[b, t, m]`.
        reversed_gate: decay by `sigmoid(-f)^relu(alpha)` instead of `sigmoid(f)`.

    Returns:
        `[b, t, m]`; token t depends on tokens <= t.

    Raises:
        ValueError: tokens of another width.

    Reference:
        arXiv 2405.15731, section 5.

    Example:
        >>> params = init(jax.random.key(0), 4)
        >>> apply(params, jnp.ones((1, 5, 4))).shape
        (1, 5, 4)
    """
    check_shape("u", u, "b t m", {"m": params.input.shape[0]})
    gate, x = jnp.split(u @ params.input, 2, axis=-1)
    taps, length = len(params.convolution), u.shape[1]
    padded = jnp.pad(x, ((0, 0), (taps - 1, 0), (0, 0)))
    shifted = [padded[:, tap : tap + length] for tap in range(taps)]
    x = jnp.einsum("sbtc,sc->btc", jnp.stack(shifted), params.convolution)
    x = x + params.convolution_bias
    forget, write, read = jnp.split(x @ params.gates + params.gates_bias, 3, axis=-1)
    if reversed_gate:
        decay = jax.nn.relu(params.alpha) * jax.nn.log_sigmoid(-forget)
    else:
        decay = jax.nn.log_sigmoid(forget)
    # Every channel is a head with a state of one number.
    one = jnp.ones_like(x)[..., None]
    state = recur(one, one, (jax.nn.sigmoid(write) * x)[..., None], decay=decay)[..., 0]
    return (jax.nn.gelu(gate, approximate=False) * jax.nn.sigmoid(read) * state) @ params.output
