"""Residual networks as Euler's method, and how stiff their trajectories are (arXiv 2308.09939).

    x_{t+1} = x_t + a_t f(x_t)

A field is stiff where it changes much over a short way: a step that is safe elsewhere then
overshoots. Attention that is small there is an adaptive step size; see
`jattn.mechanisms.channel.step_attention`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

Field = Callable[[Array], Array]


def euler_residual(
    field: Field, x: Float[Array, "*shape"], step: ArrayLike = 1.0
) -> Float[Array, "*shape"]:
    """One residual block, `x + step f(x)`.

    Args:
        field: f.
        x: the state.
        step: the step size, a number or an array that broadcasts against x; 1 is a plain block.

    Returns:
        The next state.

    Reference:
        arXiv 2308.09939.

    Example:
        >>> euler_residual(lambda x: -x, jnp.ones(2), jnp.array([0.5, 1.0])).tolist()
        [0.5, 0.0]
    """
    return x + step * field(x)


def trajectory(
    field: Field, x: Float[Array, "*shape"], steps: Float[Array, "n ..."]
) -> Float[Array, " n+1 *shape"]:
    """The states before, between and after n residual blocks of one field.

    Args:
        field: f.
        x: the first state.
        steps: the step size of each block, `[n, ...]`.

    Returns:
        `[n + 1, ...]`.

    Example:
        >>> trajectory(lambda x: -x, jnp.ones(()), jnp.array([0.5, 0.5])).tolist()
        [1.0, 0.5, 0.25]
    """

    def block(x, step):
        x = euler_residual(field, x, step)
        return x, x

    _, after = jax.lax.scan(block, x, steps)
    return jnp.concatenate([x[None], after])


def stiffness_index(
    states: Float[Array, "n *batch c"], changes: Float[Array, "n *batch c"], eps: float = 1e-12
) -> Float[Array, " n-1 *batch"]:
    """How fast the field changes along a trajectory, `|f_{t+1} - f_t| / (|x_{t+1} - x_t| + eps)`.

    An estimate from below of the field's Lipschitz constant; of a symmetric linear field it lies
    between the smallest and the largest size of its eigenvalues.

    Args:
        states: x_t, `[n, ..., c]`.
        changes: f(x_t), `[n, ..., c]`.
        eps: keeps two equal states from dividing by zero.

    Returns:
        `[n - 1, ...]`.

    Reference:
        arXiv 2308.09939; the measure is a finite difference of our own choice.

    Example:
        >>> x = jnp.array([[1.0], [0.5], [0.25]])
        >>> stiffness_index(x, -3 * x).round(4).tolist()
        [3.0, 3.0]
    """
    size = lambda x: jnp.sqrt((jnp.diff(x, axis=0) ** 2).sum(-1))
    return size(changes) / (size(states) + eps)
