"""The Van der Pol oscillator, a stiff equation in the plane: where a state is after some time.

    x' = y,   y' = mu (1 - x^2) y - x

For large mu a state falls quickly onto a slow curve, creeps along it, and jumps.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.checks import check_number, check_shape

SCALE = np.array([2.0, 10.0], np.float32)  # about the size of x and y on the limit cycle, mu = 10
SMALLEST_STEP = 2e-3


def sample_starts(key: jax.Array) -> Float[Array, " 2"]:
    """One state, uniform in a box around the limit cycle: |x| < 2.5, |y| < 12.5.

    Example:
        >>> sample_starts(jax.random.key(0)).shape
        (2,)
    """
    return jax.random.uniform(key, (2,), minval=-1.0) * jnp.asarray(1.25 * SCALE)


def van_der_pol_flow(
    state: Float[Array, "*batch 2"], mu: float, time: float
) -> Float[Array, "*batch 2"]:
    """The state after some time, by Runge-Kutta steps of fourth order.

    Args:
        state: (x, y), `[..., 2]`.
        mu: how stiff, at least 0.
        time: for how long; steps are 0.002 / max(mu / 10, 1) long at most.

    Returns:
        `[..., 2]`.

    Raises:
        ValueError: a number out of range.

    Example:
        Without damping it goes round in a circle, in 2 pi:

        >>> end = van_der_pol_flow(jnp.array([1.0, 0.0]), 0.0, np.pi)
        >>> [round(float(x), 3) for x in end]
        [-1.0, 0.0]
    """
    check_number("mu", mu, least=0)
    check_number("time", time, least=0)
    state = jnp.asarray(state)
    check_shape("state", state, " ".join([*(f"axis{n}" for n in range(1, state.ndim)), "2"]), {})
    count = int(np.ceil(time * max(mu / 10, 1.0) / SMALLEST_STEP))
    step = time / max(count, 1)

    def field(state):
        x, y = state[..., 0], state[..., 1]
        return jnp.stack([y, mu * (1 - x**2) * y - x], axis=-1)

    def advance(_, state):
        first = field(state)
        second = field(state + step / 2 * first)
        third = field(state + step / 2 * second)
        fourth = field(state + step * third)
        return state + step / 6 * (first + 2 * second + 2 * third + fourth)

    return jax.lax.fori_loop(0, count, advance, state)
