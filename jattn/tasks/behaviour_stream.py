"""A stream of what somebody at a screen does, window by window, and their state of attention.

States last for a time of their own distribution and follow one another by a table. In each window
there are counts of clicks, scrolls, reversals of scrolling and switches of focus, all Poisson, and
the share of it in which nothing happens, which is Beta distributed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count, check_shape

STATES = ("focused", "drifting", "hyperfocused", "fatigued")
EVENTS = ("clicks", "scrolls", "reversals", "switches")
TRANSITION = (
    (0.0, 0.55, 0.25, 0.2),
    (0.6, 0.0, 0.1, 0.3),
    (0.4, 0.2, 0.0, 0.4),
    (0.45, 0.5, 0.05, 0.0),
)
# Windows that a state lasts, in the mean before they are cut, and the shape of their distribution.
MEANS, SHAPE, LONGEST = (8.0, 3.0, 14.0, 6.0), 3.0, 32
RATES = ((4.0, 6.0, 0.8, 0.4), (2.5, 10.0, 2.6, 1.4), (3.2, 5.0, 0.5, 0.05), (1.4, 3.5, 1.0, 0.6))
IDLE = ((2.0, 8.0), (3.0, 6.0), (1.5, 12.0), (4.0, 5.0))
BREAKS = 0.2  # how often a window ends in a natural break


class Stream(NamedTuple):
    """What is seen, and what is so.

    Attributes:
        counts: of events in each window, `[t, 4]`.
        idle: share of each window without any, `[t]`.
        breakpoint: whether there is a natural break, `[t]`.
        states: the truth, `[t]`.
    """

    counts: Int[Array, "t 4"]
    idle: Float[Array, " t"]
    breakpoint: Bool[Array, " t"]
    states: Int[Array, " t"]


def behaviour_stream(
    key: jax.Array,
    windows: int,
    initial: Float[Array, " k"],
    transition: Float[Array, "k k"],
    duration: Float[Array, "k d"],
    rates: Float[Array, "k 4"] | None = None,
    idle: Float[Array, "k 2"] | None = None,
) -> Stream:
    """Draws a stream, whose first window begins a segment.

    Args:
        key: of the draw.
        windows: how many.
        initial: of the first state.
        transition: of the state that follows; the diagonal is 0.
        duration: of segments, in windows from 1 on.
        rates: of events in each state; default `RATES`.
        idle: parameters of the Beta distributions; default `IDLE`.

    Example:
        >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> twice = jnp.array([[0.0, 1.0], [0.0, 1.0]])  # segments of two windows
        >>> start = jnp.array([1.0, 0.0])
        >>> behaviour_stream(jax.random.key(0), 5, start, swap, twice).states.tolist()
        [0, 0, 1, 1, 0]
    """
    check_count("windows", windows)
    sizes: dict[str, int] = {}
    check_shape("initial", initial, "k", sizes)
    check_shape("transition", transition, "k k", sizes)
    check_shape("duration", duration, "k d", sizes)
    rates = jnp.asarray(RATES)[: sizes["k"]] if rates is None else rates
    idle = jnp.asarray(IDLE)[: sizes["k"]] if idle is None else idle
    of_states, of_counts, of_idle, of_breaks = jax.random.split(key, 4)
    logs = lambda p: jnp.log(jnp.maximum(p, 1e-30))

    def step(carry, key):
        state, left, begun = carry
        of_state, of_length = jax.random.split(key)
        first = jax.random.categorical(of_state, logs(initial))
        following = jax.random.categorical(of_state, logs(transition[state]))
        new = jnp.where(begun, following, first)
        length = 1 + jax.random.categorical(of_length, logs(duration[new]))
        over = left == 0
        state, left = jnp.where(over, new, state), jnp.where(over, length, left)
        return (state, left - 1, True), state

    start = (jnp.zeros((), int), jnp.zeros((), int), False)
    _, states = lax.scan(step, start, jax.random.split(of_states, windows))
    return Stream(
        jax.random.poisson(of_counts, rates[states]),
        jnp.clip(jax.random.beta(of_idle, *idle[states].T), 1e-4, 1 - 1e-4),
        jax.random.bernoulli(of_breaks, BREAKS, (windows,)),
        states,
    )


def window_counts(
    time: Float[Array, " events"],
    kind: Int[Array, " events"],
    windows: int,
    *,
    seconds: float = 30.0,
    kinds: int = len(EVENTS),
) -> tuple[Int[Array, "windows kinds"], Float[Array, " windows"]]:
    """All that leaves the browser: counts of each kind of event in each window, and idle shares.

    When in a window something happened, beyond its second, in what order, where on the page and to
    what text is not kept.

    Args:
        time: of each event, in seconds.
        kind: of each event.
        windows: how many windows.
        seconds: length of a window.
        kinds: how many kinds there are.

    Returns:
        Counts, and the share of whole seconds of each window without any event.

    Example:
        >>> counts, idle = window_counts(jnp.array([0.5, 1.0, 2.5]), jnp.array([0, 1, 0]), 2,
        ...                              seconds=2.0, kinds=2)
        >>> counts.tolist(), idle.tolist()
        ([[1, 1], [1, 0]], [0.0, 0.5])
    """
    check_count("windows", windows)
    window = jnp.floor(time / seconds).astype(int)
    inside = (window >= 0) & (window < windows)
    place = jnp.where(inside, window, windows)  # the last row is thrown away
    counts = jnp.zeros((windows + 1, kinds), int).at[place, kind].add(1)[:-1]
    whole = max(round(seconds), 1)
    second = jnp.clip(jnp.floor(time - window * seconds).astype(int), 0, whole - 1)
    busy = jnp.zeros((windows + 1, whole), bool).at[place, second].set(True)[:-1]
    return counts, 1 - busy.mean(1)
