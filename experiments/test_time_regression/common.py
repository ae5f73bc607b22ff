"""What the studies share."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jattn.attention import attend
from jattn.mechanisms.linear.local_linear_attention import local_linear_attention
from jattn.tasks.piecewise_regression import Problem, piecewise_regression
from jattn.training import Claim, Paper
from jattn.training.claims import IDENTITY

PAPER = Paper("arXiv 2510.01450", "Local linear attention")
# Algebra of the layers, true of the code whatever is measured; S3 to S5 cannot be missed.
IDENTITIES = re.compile(r"R[1-5]|S[345]")


def claim_of(id: str, *values: Any, **source: Any) -> Claim:
    """A claim on this paper, of its kind."""
    kind = {"kind": IDENTITY} if IDENTITIES.fullmatch(id) else {}
    return PAPER.claim(id, *values, **(kind | source))


CLASSICAL = Paper("Fan and Gijbels 1996", "Local polynomial modelling and its applications")


def problem_of(config, seed, segments) -> Problem:
    """The problem of a seed; the seed and the number of segments may be traced."""
    sample = piecewise_regression(**config.task, most_segments=max(config.segments))
    return sample(jax.random.key(seed), segments)


def seeds_of(config) -> list[np.int32]:
    """The seeds, as cells of a sweep."""
    return [np.int32(config.seed + seed) for seed in range(config.seeds)]


def one_head(*arrays):
    """`[n, d] -> [1, n, 1, d]`, as mechanisms take them."""
    return [x[None, :, None] for x in arrays]


def local_weights(problem: Problem, scale, ridge):
    """Weights `[m, n]` of local linear attention, as the mechanism gives them."""
    arrays = one_head(problem.query, problem.key, problem.clean)
    chosen = dict(scale=scale, ridge=ridge, solver="exact", return_weights=True)
    return local_linear_attention(*arrays, **chosen)[1][0, 0]


def softmax_weights(problem: Problem, scale):
    """Weights `[m, n]` of softmax attention."""
    arrays = one_head(problem.query, problem.key, problem.clean)
    return attend(*arrays, scale=scale, return_weights=True)[1][0, 0]


def over(function, *grids: Sequence[float]):
    """The function on the product of grids, an axis for each."""
    for axis in reversed(range(len(grids))):
        places = tuple(0 if i == axis else None for i in range(len(grids)))
        function = jax.vmap(function, in_axes=places)
    return function(*(jnp.asarray(grid, jnp.float32) for grid in grids))
