"""Titans' memory where it is a matrix: the same numbers by matrix products.

Paper: Titans, arXiv 2501.00663.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape
from jattn.mechanisms.memory.network_memory import network_memory
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
    forget: Float[Array, "b t h"] | Float[Array, "b t h e"],
    momentum: Float[Array, "b t h"] | None = None,
    *,
    refresh: int = 1,
    slope: Callable[[Array, Any], Array] = squared_slope,
    slope_inputs: Any = None,
    initial: tuple[Any, Any] | None = None,
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h d e"], Float[Array, "b h d e"]]:
    """`neural_memory` of a matrix, M(x) = x M, in closed form: no weights a token.

    `refresh=1` without momentum is a gated delta rule, and is left to `jattn.recur`.

    Args:
        params0: M_0, `[h, d, e]`.
        query: `[b, t, h, d]`.
        key: `[b, t, h, d]`.
        value: `[b, t, h, e]`.
        step_size: theta, `[b, t, h]`, or one for each channel of the values `[b, t, h, e]`.
        forget: a in [0, 1], likewise; below 1 without momentum.
        momentum: eta in [0, 1); None leaves it out.
        refresh: tokens a chunk, which share one gradient point.
        slope: `(error [n, e], inputs) -> [n, e]`, the derivative of the loss in M^T k.
        slope_inputs: what else it needs, leaves `[b, t, h, ...]`; it is given `[n, ...]`.
        initial: M and S to go on from, `[b, h, d, e]`, at a chunk's border.

    Returns:
        Reads, M and S, as `neural_memory`.

    Raises:
        ValueError: shapes or numbers that do not fit.

    Reference:
        arXiv 2501.00663, section 3.2.

    Example:
        >>> x, rate = jax.random.normal(jax.random.key(1), (1, 9, 2, 4)), jnp.full((1, 9, 2), 0.1)
        >>> linear_memory(jnp.zeros((2, 4, 4)), x, x, x, rate, rate, rate, refresh=4)[0].shape
        (1, 9, 2, 4)
    """
    sizes = check_inputs(query, key, value)
    check_shape("params0", params0, "h d e", sizes)
    for name, rates in (("step_size", step_size), ("forget", forget)):
        check_shape(name, rates, "b t h e" if rates.ndim == 4 else "b t h", sizes)
    if refresh < 1:
        raise ValueError(f"refresh: expected at least 1, got {refresh}")
    if momentum is not None:
        check_shape("momentum", momentum, "b t h", sizes)
    dtype, arrays = widen(query, key, value, step_size, forget, momentum)
    query, key, value, step_size, forget, momentum = arrays
    params0, (weights, surprise) = beginning(params0, initial, sizes["b"], query.dtype)
    if (
        refresh == 1
        and momentum is None
        and slope is squared_slope
        and step_size.ndim == forget.ndim == 3
    ):
        keep = 1 - forget
        out, weights = recur(
            query, key, keep[..., None] * value,
            decay=jnp.log(keep), beta=2 * step_size / keep,
            initial_state=weights, return_state=True,
        )  # fmt: skip
        return out.astype(dtype), weights, surprise

    # A step size of each channel is one of the loss's derivative.
    by_channel = step_size if step_size.ndim == 4 else step_size[..., None]
    own = jax.tree.map(lambda x: x.astype(query.dtype), (by_channel, slope_inputs))

    def of_token(error, own):
        rate, inputs = jax.tree.map(lambda x: x[None], own)
        return (rate * slope(error[None], inputs))[0]

    out, *state = network_memory(
        {"weights": [weights]}, {"weights": [surprise]}, query, key, value,
        {"weights": [jnp.ones(query.shape[:3], query.dtype)]}, {"weights": [forget]}, momentum, own,
        refresh=refresh, slope=of_token,
    )  # fmt: skip
    return out.astype(dtype), *(tree["weights"][0] for tree in state)
