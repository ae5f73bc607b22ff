"""A ball that flies behind an occluder towards a paddle: paths, frames, who catches it.

The ball has constant velocity in the unit square and bounces off the walls y = 0 and y = 1. It is
hidden where x >= occluder, and meets the paddle's line at x = 1.

    x_t = x_0 + v_x t,   y_t = fold(y_0 + v_y t),   fold(u) = u' where u' = u mod 2 < 1, else 2 - u'
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count, check_number


class Path(NamedTuple):
    """Paths of balls and what becomes of them.

    Attributes:
        x, y, vx, vy: at each frame, `[n, frames]`.
        visible: whether the ball is in front of the occluder, `[n, frames]`.
        arrival_time: in frames, not rounded, `[n]`.
        intercept: the height at which it meets the paddle's line, `[n]`.
        bounces: walls met by then, `[n]`.
    """

    x: Float[Array, "n frames"]
    y: Float[Array, "n frames"]
    vx: Float[Array, "n frames"]
    vy: Float[Array, "n frames"]
    visible: Bool[Array, "n frames"]
    arrival_time: Float[Array, " n"]
    intercept: Float[Array, " n"]
    bounces: Int[Array, " n"]


class Pong(NamedTuple):
    """Clips of the game.

    Attributes:
        frames: images, `[n, frames, side, side]`, rows are y.
        state: x, y, v_x, v_y, `[n, frames, 4]`.
        visible: `[n, frames]`.
        paddle: height of its middle, `[n]`.
        contact: whether it meets the ball, `[n]`.
    """

    frames: Float[Array, "n frames side side"]
    state: Float[Array, "n frames 4"]
    visible: Bool[Array, "n frames"]
    paddle: Float[Array, " n"]
    contact: Bool[Array, " n"]


def fold(u: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Heights on a line without walls, as they are between the walls.

    Example:
        >>> fold(jnp.array([0.25, 1.25, 2.25, -0.25])).tolist()
        [0.25, 0.75, 0.25, 0.25]
    """
    inside = jnp.mod(u, 2.0)
    return jnp.where(inside < 1, inside, 2 - inside)


def path(
    x0: Float[Array, " n"],
    y0: Float[Array, " n"],
    vx: Float[Array, " n"],
    vy: Float[Array, " n"],
    *,
    frames: int = 24,
    occluder: float = 0.55,
) -> Path:
    """The paths of balls from where they start.

    Args:
        x0, y0: at frame 0.
        vx, vy: a frame; vx > 0.
        frames: how many.
        occluder: x from which on the ball is hidden.

    Example:
        >>> one = lambda value: jnp.array([value])
        >>> found = path(one(0.0), one(0.5), one(0.25), one(0.25), frames=4)
        >>> found.y[0].tolist(), found.bounces.tolist()
        ([0.5, 0.75, 1.0, 0.75], [1])
    """
    check_count("frames", frames)
    check_number("occluder", occluder)
    time = jnp.arange(frames)
    x = x0[:, None] + vx[:, None] * time
    line = y0[:, None] + vy[:, None] * time
    arrival = (1 - x0) / vx
    at_paddle = y0 + vy * arrival
    walls = jnp.floor(at_paddle)
    return Path(
        x, fold(line), jnp.broadcast_to(vx[:, None], x.shape), vy[:, None] * _sign(line),
        x < occluder, arrival, fold(at_paddle),
        jnp.where(at_paddle >= 0, walls, -walls).astype(int),
    )  # fmt: skip


def meets(
    intercept: Float[Array, " n"], paddle: Float[Array, " n"], half_width: float = 0.08
) -> Bool[Array, " n"]:
    """Whether paddles are where balls arrive.

    Example:
        >>> meets(jnp.array([0.5, 0.5]), jnp.array([0.55, 0.7])).tolist()
        [True, False]
    """
    return jnp.abs(intercept - paddle) <= half_width


def draw(
    x: Float[Array, "*n"],
    y: Float[Array, "*n"],
    visible: Bool[Array, "*n"],
    *,
    side: int = 16,
    sigma: float = 0.09,
) -> Float[Array, "*n side side"]:
    """Images of a ball that is a Gaussian spot; dark where it is hidden.

    Args:
        x, y: where it is.
        visible: whether it is seen.
        side: of the image, in pixels whose middles are at (k + 1/2) / side.
        sigma: of the spot.

    Example:
        >>> float(draw(jnp.array(0.5), jnp.array(0.5), jnp.array(True), side=1)[0, 0])
        1.0
    """
    check_count("side", side)
    check_number("sigma", sigma, above=0)
    middle = (jnp.arange(side) + 0.5) / side
    dx = middle - x[..., None]
    dy = middle - y[..., None]
    spot = jnp.exp(-(dx[..., None, :] ** 2 + dy[..., :, None] ** 2) / (2 * sigma**2))
    return jnp.where(visible[..., None, None], spot, 0.0)


def pong(
    key: jax.Array,
    n: int,
    *,
    frames: int = 24,
    side: int = 16,
    occluder: float = 0.55,
    half_width: float = 0.08,
    sigma: float = 0.09,
    clutter: float = 0.0,
) -> Pong:
    """Draws clips, in half of which the paddle is where the ball arrives.

    Args:
        key: of the draw.
        n: clips.
        frames: of a clip.
        side: of an image.
        occluder: x from which on the ball is hidden; above 1 it never is.
        half_width: of the paddle.
        sigma: of the ball.
        clutter: standard deviation of a background that stays the same throughout a clip: 4 by 4
            squares of Gaussian noise.

    Example:
        >>> found = pong(jax.random.key(0), 3, side=8)
        >>> found.frames.shape, found.state.shape
        ((3, 24, 8, 8), (3, 24, 4))
    """
    check_count("n", n)
    check_number("clutter", clutter, least=0)
    keys = jax.random.split(key, 6)
    uniform = lambda k, low, high: jax.random.uniform(keys[k], (n,), minval=low, maxval=high)
    found = path(
        uniform(0, 0.0, 0.1), uniform(1, 0.1, 0.9), uniform(2, 0.036, 0.05),
        uniform(3, -0.06, 0.06), frames=frames, occluder=occluder,
    )  # fmt: skip
    offset = uniform(4, -4 * half_width, 4 * half_width)
    hit = jnp.arange(n) % 2 == 0
    paddle = jnp.clip(
        found.intercept + jnp.where(hit, offset / 4, offset), half_width, 1 - half_width
    )
    images = draw(found.x, found.y, found.visible, side=side, sigma=sigma)
    squares = clutter * jax.random.normal(keys[5], (n, 4, 4))
    background = jax.image.resize(squares, (n, side, side), "nearest")
    return Pong(
        images + background[:, None],
        jnp.stack([found.x, found.y, found.vx, found.vy], -1),
        found.visible, paddle, meets(found.intercept, paddle, half_width),
    )  # fmt: skip


def _sign(line):
    return jnp.where(jnp.mod(line, 2.0) < 1, 1.0, -1.0)
