"""The world, its exact filter, and the paper."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jattn.tasks import behaviour_stream as bs
from jattn.theory import semi_markov as sm
from jattn.training import Paper

PAPER = Paper("arXiv 2602.07865", "AttentionGuard")


class World(NamedTuple):
    """Distributions of the semi-Markov world.

    Attributes:
        initial: of the first state: what all windows have in the long run, `[4]`.
        transition: `[4, 4]`.
        duration: `[4, longest]`.
    """

    initial: jax.Array
    transition: jax.Array
    duration: jax.Array


def world() -> World:
    """The world of `jattn.tasks.behaviour_stream`."""
    duration = sm.negative_binomial_durations(jnp.asarray(bs.MEANS), bs.SHAPE, bs.LONGEST)
    transition = jnp.asarray(bs.TRANSITION)
    return World(jnp.asarray(sm.occupancy(transition, duration)), transition, duration)


def streams(key: jax.Array, episodes: int, windows: int) -> bs.Stream:
    """So many episodes, a leading axis."""
    w = world()
    draw = jax.jit(jax.vmap(lambda key: bs.behaviour_stream(key, windows, *w)))
    return draw(jax.random.split(key, episodes))


class Beliefs(NamedTuple):
    """Posteriors of each window, `[episodes, windows, 4]`.

    Attributes:
        filtered: given all windows up to it: the ceiling.
        memoryless: given that window alone.
    """

    filtered: np.ndarray
    memoryless: np.ndarray


def beliefs(stream: bs.Stream) -> Beliefs:
    """What Bayes' rule gives."""
    w = world()

    @jax.jit
    @jax.vmap
    def one(counts, idle):
        rates, beta = jnp.asarray(bs.RATES), jnp.asarray(bs.IDLE)
        likelihood = sm.count_log_likelihood(counts, idle, rates, beta)
        filtered = sm.semi_markov_filter(*w, likelihood).posterior
        return filtered, sm.memoryless_posterior(w.initial, likelihood)

    return Beliefs(*(np.asarray(x) for x in one(stream.counts, stream.idle)))


def switches(states: np.ndarray) -> float:
    """Changes of state in an episode, in the mean."""
    return float((np.diff(states, axis=-1) != 0).sum(-1).mean())
