"""Clips that are shown, neurons that follow them, and the score of features for those neurons.

Scores are taken behind the occluder: of each clip the first `HIDDEN` frames in which the ball is
not seen, before it arrives. Clips, with all their frames, are for training or for the test.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jattn.tasks.neural_population import Kind, neural_population
from jattn.tasks.pong import Pong, pong
from jattn.theory.predictivity import predictivity
from jattn.training import Paper

PAPER = Paper("arXiv 2305.11772", "Neural foundations of mental simulation")
HIDDEN = 8
HALVES, SPLITS, WIDTH = 10, 5, 24
_predictivity = jax.jit(predictivity)


def shown(config, key: jax.Array) -> Pong:
    """The clips that neurons see."""
    return pong(key, config.clips, side=config.side, clutter=config.clutter)


def epochs(visible: np.ndarray) -> dict[str, np.ndarray]:
    """Frames of each clip that count, `[clips, frames]`: behind the occluder, and all."""
    first = np.asarray(visible).sum(1)  # the ball never comes back
    return {
        "hidden": first[:, None] + np.arange(HIDDEN),
        "all": np.tile(np.arange(visible.shape[1]), (len(visible), 1)),
    }


def rows_of(values, frames: np.ndarray):
    """`[..., clips, t, m]` to the rows of some frames, `[..., clips * frames, m]`."""
    picked = values[..., np.arange(len(frames))[:, None], frames, :]
    return picked.reshape(*picked.shape[:-3], -1, picked.shape[-1])


def score(
    config, key: jax.Array, features: jax.Array, responses: jax.Array, frames: np.ndarray
) -> float:
    """Median over neurons of the corrected score of features, `[clips, t, m]`.

    Features that do not vary explain nothing: 0.
    """
    clips, count = frames.shape
    of_clips, of_trials = jax.random.split(key)
    x, y = rows_of(features, frames), rows_of(responses, frames)
    spread = x.std(0)
    if float(spread.max()) < 1e-6:
        return 0.0
    x = (x - x.mean(0)) / jnp.where(spread > 1e-6, spread, 1.0)
    # Columns of zeros change no ridge map; of one width, all features share a program.
    x = jnp.pad(x, ((0, 0), (0, max(0, WIDTH - x.shape[1]))))
    order = jax.vmap(lambda k: jax.random.permutation(k, clips))(jax.random.split(of_clips, SPLITS))
    rows = (order[..., None] * count + jnp.arange(count)).reshape(SPLITS, -1)
    half = rows.shape[1] // 2
    trials = jax.vmap(lambda k: jax.random.permutation(k, config.trials))(
        jax.random.split(of_trials, HALVES)
    )
    middle = config.trials // 2
    found = _predictivity(
        x, y, rows[:, :half], rows[:, half:], trials[:, :middle], trials[:, middle:],
        alpha=config.alpha,
    )  # fmt: skip
    return float(found.median)


def population(config, clips: Pong, kind: Kind, seed: int) -> jax.Array:
    """Responses of neurons of a kind."""
    return neural_population(
        jax.random.key(seed), clips.state, clips.visible, kind, units=config.units,
        trials=config.trials, noise=config.noise,
    )  # fmt: skip
