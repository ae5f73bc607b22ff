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
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.theory.dynamical_systems import System

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


def system(
    params: Parameters, u: Float[Array, "b t m"], *, reversed_gate: bool = False
) -> tuple[System, Float[Array, "b t c 1"], Float[Array, "b t c"]]:
    """The quasi-LSTM as a linear time-varying system: every channel a head with one state.

    Args:
        params: the weights.
        u: tokens `[b, t, m]`.
        reversed_gate: decay by `sigmoid(-f)^relu(alpha)` instead of `sigmoid(f)`.

    Returns:
        The system with decay a, write sigmoid(i) and read sigmoid(o); its values x
        `[b, t, c, 1]`; and what its outputs are multiplied by, gelu(gate) `[b, t, c]`.

    Raises:
        ValueError: tokens of another width.

    Reference:
        arXiv 2405.15731, section 5.

    Example:
        >>> cell, value, gate = system(init(jax.random.key(0), 4), jnp.ones((1, 5, 4)))
        >>> cell.decay.shape, value.shape, gate.shape
        ((1, 5, 8, 1), (1, 5, 8, 1), (1, 5, 8))
    """
    check_shape("u", u, "b t m", {"m": params.input.shape[0]})
    gate, x = jnp.split(u @ params.input, 2, axis=-1)
    taps, length = len(params.convolution), u.shape[1]
    padded = jnp.pad(x, ((0, 0), (taps - 1, 0), (0, 0)))
    x = sum(padded[:, tap : tap + length] * params.convolution[tap] for tap in range(taps))
    x = x + params.convolution_bias
    forget, write, read = jnp.split((x @ params.gates + params.gates_bias)[..., None], 3, axis=-2)
    if reversed_gate:
        decay = jax.nn.relu(params.alpha) * jax.nn.log_sigmoid(-forget)
    else:
        decay = jax.nn.log_sigmoid(forget)
    cell = System(decay, jax.nn.sigmoid(write), jax.nn.sigmoid(read))
    return cell, x[..., None], jax.nn.gelu(gate, approximate=False)


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
    cell, value, gate = system(params, u, reversed_gate=reversed_gate)
    # Token by token: with states of one number, products of matrices save nothing.
    return (gate * cell(value)[..., 0]) @ params.output
