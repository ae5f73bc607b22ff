"""States of attention turned into what an interface does: hysteresis, and a table of patterns.

    stay in s; switch to c = argmax belief only if s has lasted `dwell` windows, belief_c >= on,
    belief_s < off, and s is not protected or there is a natural break

Beliefs are posteriors of a filter or a classifier, whose argmax flickers. All of it is reversible:
a pattern is a function of the state now, and of the arousal while drifting.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count, check_number, check_shape
from jattn.tasks.behaviour_stream import STATES

PATTERNS = ("chunk", "stimulation", "verification", "landmarks", "workspace")
# Chunks: 0 review, 1 micro, 2 paragraph, 3 section. Verification: 0 deferred, 1 at a break, 2 soon.
# Landmarks: 0 hidden, 1 compact, 2 expanded. Workspace: 0 closed, 1 open.
CHUNK, VERIFICATION, LANDMARKS, WORKSPACE = (2, 1, 3, 0), (1, 2, 0, 0), (1, 2, 0, 2), (0, 1, 0, 1)
DRIFTING, HYPERFOCUSED, FATIGUED = map(STATES.index, ("drifting", "hyperfocused", "fatigued"))


def hysteresis(
    beliefs: Float[Array, "t k"],
    breakpoint: Bool[Array, " t"] | None = None,
    *,
    on: float = 0.5,
    off: float = 0.35,
    dwell: int = 2,
    protect: int | None = HYPERFOCUSED,
) -> Int[Array, " t"]:
    """The state that is acted on in each window.

    Args:
        beliefs: of the states.
        breakpoint: True = a natural break; default never.
        on: the least belief of a state that is switched to.
        off: a state is left only when its belief is below this.
        dwell: windows that a state lasts at least.
        protect: a state that is left at a break only; None for none.

    Raises:
        ValueError: beliefs of another shape, or options out of range.

    Reference:
        arXiv 2602.07865, which does not give its rule: this one is ours.

    Example:
        >>> beliefs = jnp.array([[0.9, 0.1], [0.45, 0.55], [0.2, 0.8], [0.2, 0.8]])
        >>> hysteresis(beliefs, protect=None).tolist()
        [0, 0, 1, 1]
    """
    sizes: dict[str, int] = {}
    check_shape("beliefs", beliefs, "t k", sizes)
    check_count("dwell", dwell)
    check_number("on", on)
    check_number("off", off)
    if breakpoint is None:
        breakpoint = jnp.zeros(sizes["t"], bool)
    check_shape("breakpoint", breakpoint, "t", sizes)
    if not sizes["t"]:
        raise ValueError("beliefs: expected at least one window, got none")

    def step(carry, now):
        state, age = carry
        belief, is_break = now
        wanted = belief.argmax()
        goes = (age >= dwell) & (wanted != state) & (belief[wanted] >= on) & (belief[state] < off)
        if protect is not None:
            goes &= (state != protect) | is_break
        state = jnp.where(goes, wanted, state)
        return (state, jnp.where(goes, 1, age + 1)), state

    first = beliefs[0].argmax()
    _, states = lax.scan(step, (first, jnp.ones((), int)), (beliefs[1:], breakpoint[1:]))
    return jnp.concatenate([first[None], states])


def patterns(states: Int[Array, " t"], arousal: Float[Array, " t"]) -> Int[Array, "t 5"]:
    """What the interface does in each window, in the order of `PATTERNS`.

    Args:
        states: of `hysteresis`.
        arousal: while drifting, above 0 takes stimulation away (-1), else it is added (+1).

    Example:
        >>> patterns(jnp.array([0, 1]), jnp.array([0.0, -1.0])).tolist()
        [[2, 0, 1, 1, 0], [1, 1, 2, 2, 1]]
    """
    drifting = jnp.where(arousal <= 0, 1, -1)
    stimulation = jnp.where(states == DRIFTING, drifting, -(states == FATIGUED).astype(int))
    of = lambda table: jnp.asarray(table)[states]
    return jnp.stack([of(CHUNK), stimulation, of(VERIFICATION), of(LANDMARKS), of(WORKSPACE)], 1)


class Agreement(NamedTuple):
    """How far two sequences of states agree.

    Attributes:
        confusion: `[first, second]`, how many windows.
        observed: share of windows in which they agree.
        expected: the same by chance, from how often each has each state.
        kappa: `(observed - expected) / (1 - expected)`.
        f1: of each state, 0 for one that neither has.
        macro_f1: their mean.
    """

    confusion: Int[np.ndarray, "k k"]
    observed: float
    expected: float
    kappa: float
    f1: Float[np.ndarray, " k"]
    macro_f1: float


def agreement(first: Int[Array, " t"], second: Int[Array, " t"], states: int) -> Agreement:
    """Cohen's kappa, F1 and the confusion of two sequences.

    Args:
        first: rows of the confusion: what is taken as right.
        second: its columns.
        states: how many there are.

    Raises:
        ValueError: sequences of other lengths, or empty ones.

    Example:
        >>> round(agreement(jnp.array([0, 1, 1, 0]), jnp.array([0, 1, 1, 1]), 2).kappa, 3)
        0.5
    """
    sizes: dict[str, int] = {}
    check_shape("first", first, "t", sizes)
    check_shape("second", second, "t", sizes)
    if not sizes["t"]:
        raise ValueError("first: expected at least one window, got none")
    confusion = np.zeros((states, states), int)
    np.add.at(confusion, (np.asarray(first), np.asarray(second)), 1)
    share = confusion / confusion.sum()
    observed = float(np.trace(share))
    expected = float(share.sum(1) @ share.sum(0))
    kappa = 1.0 if expected == 1 else (observed - expected) / (1 - expected)
    used = confusion.sum(0) + confusion.sum(1)
    f1 = 2 * np.diag(confusion) / np.maximum(used, 1)
    return Agreement(confusion, observed, expected, kappa, f1, float(f1.mean()))
