"""Titans' memory where it is a matrix: the same numbers by matrix products.

Paper: Titans, arXiv 2501.00663.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.checks import check_shape
from jattn.mechanisms.memory.inner_loop import over_blocks, per_head, transfer
from jattn.mechanisms.memory.neural_memory import (
    beginning,
    check_inputs,
    squared_slope,
    widen,
)
from jattn.recurrence import recur


def linear_memory(
    params0: Float[Array, "h d e"],
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    step_size: Float[Array, "b t h"] | Float[Array, "b t h e"],
    forget: Float[Array, "b t h"],
    momentum: Float[Array, "b t h"] | None = None,
    *,
    refresh: int = 1,
    slope: Callable[[Array, Any], Array] = squared_slope,
    slope_inputs: Any = None,
    initial: tuple[Any, Any] | None = None,
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h d e"], Float[Array, "b h d e"]]:
    """`neural_memory` of a matrix, M(x) = x M, in closed form: no weights a token.

    In a chunk that M and S enter, with u_i = -theta_i slope(M^T k_i - v_i),

        y_t = A_t M^T q_t + f_t S^T q_t + sum_{i<=t} G_ti (q_t.k_i) u_i,     G = A E

    where A_ti and E_ti are the products of 1 - a and of eta from i + 1 to t, A_t = A_t0 (1 - a_1),
    f = A e with e_t the product of eta up to t. `refresh=1` without momentum is a gated delta
    rule, and is left to `jattn.recur`.

    Args:
        params0: M_0, `[h, d, e]`.
        query: `[b, t, h, d]`.
        key: `[b, t, h, d]`.
        value: `[b, t, h, e]`.
        step_size: theta, `[b, t, h]`, or one for each channel of the values `[b, t, h, e]`.
        forget: a in [0, 1], `[b, t, h]`; below 1 without momentum.
        momentum: eta in [0, 1); None leaves it out.
        refresh: tokens a chunk, which share one gradient point.
        slope: `(error, inputs) -> [..., e]`, the derivative of the loss in M^T k.
        slope_inputs: what else it needs, leaves `[b, t, h, ...]`.
        initial: M and S to go on from, `[b, h, d, e]`, at a chunk's border.

    Returns:
        Reads, M and S, as `neural_memory`.

    Raises:
        ValueError: shapes or numbers that do not fit.

    Reference:
        arXiv 2501.00663, section 3.2.

    Example:
        >>> import jax
        >>> x, rate = jax.random.normal(jax.random.key(1), (1, 9, 2, 4)), jnp.full((1, 9, 2), 0.1)
        >>> linear_memory(jnp.zeros((2, 4, 4)), x, x, x, rate, rate, rate, refresh=4)[0].shape
        (1, 9, 2, 4)
    """
    sizes = check_inputs(query, key, value, step_size)
    check_shape("params0", params0, "h d e", sizes)
    check_shape("forget", forget, "b t h", sizes)
    if refresh < 1:
        raise ValueError(f"refresh: expected at least 1, got {refresh}")
    if momentum is not None:
        check_shape("momentum", momentum, "b t h", sizes)
    dtype, arrays = widen(query, key, value, step_size, forget, momentum)
    query, key, value, step_size, forget, momentum = arrays
    params0, (weights, surprise) = beginning(params0, initial, sizes["b"], query.dtype)
    if refresh == 1 and momentum is None and slope is squared_slope and step_size.ndim == 3:
        keep = 1 - forget
        out, weights = recur(
            query, key, keep[..., None] * value,
            decay=jnp.log(keep), beta=2 * step_size / keep,
            initial_state=weights, return_state=True,
        )  # fmt: skip
        return out.astype(dtype), weights, surprise

    product = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)

    def block(carry, inputs):
        weights, surprise = carry
        query, key, value, step_size, forget, momentum, own = inputs
        error = product(key, weights) - value
        push = -step_size.reshape(len(error), -1) * slope(error, own)
        keep = 1 - forget
        share, rest = transfer(keep), jnp.cumprod(keep)
        ends = rest[-1] * weights
        out = rest[:, None] * product(query, weights)
        if momentum is not None:
            echo, fading = transfer(momentum), jnp.cumprod(momentum)
            older = product(share, fading)
            out += older[:, None] * product(query, surprise)
            ends += older[-1] * surprise
            share = product(share, echo)
            surprise = fading[-1] * surprise + product((echo[-1][:, None] * key).T, push)
        out += product(share * product(query, key.T), push)
        return (ends + product((share[-1][:, None] * key).T, push), surprise), out

    def sequence(weights, surprise, *inputs):
        return over_blocks(block, (weights, surprise), inputs, refresh, sizes["t"])

    (weights, surprise), out = per_head(sequence, shared=(0, 1))(
        weights, surprise, *arrays, slope_inputs
    )
    return out.astype(dtype), weights, surprise
