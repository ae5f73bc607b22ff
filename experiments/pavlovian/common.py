"""What the studies share: claims, seeds as cells of a sweep, memories of random pairs."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jattn.tasks.conditioning import sphere
from jattn.theory.hebbian_memory import condition, recall
from jattn.training import Claim, Paper
from jattn.training.claims import IDENTITY

PAPER = Paper("arXiv 2508.08289", "Transformers through Pavlovian conditioning")
# True of the code whatever conditioning says: algebra of the rules, bounds that cannot be missed.
IDENTITIES = re.compile(
    r"P1|P4-floor-.*|P4-rotation|P6-.*|P11-.*|P1[5-9](-.*)?|P20-second.*|S[1-5](-.*)?"
)


def claim_of(id: str, *values: Any, **source: Any) -> Claim:
    """A claim on this paper, of its kind."""
    kind = {"kind": IDENTITY} if IDENTITIES.fullmatch(id) else {}
    return PAPER.claim(id, *values, **(kind | source))


def near(id, statement, predicted, measured, share, **source) -> Claim:
    """A claim that a number is what it should be, up to a share of it."""
    predicted = float(predicted)
    return claim_of(
        id, statement, predicted, float(measured), "~=", share * abs(predicted), **source
    )


def seed_cells(config, count: int) -> list[dict[str, np.int32]]:
    """Cells of a sweep that differ in their seeds only."""
    return [{"seed": np.int32(config.seed + i)} for i in range(count)]


def random_pairs(key: jax.Array, *, trials: int, pairs: int, dim: int):
    """Independent unit keys and values, `[trials, pairs, 1, d]` each."""
    first, second = jax.random.split(key)
    shape = (trials, pairs, 1, dim)
    return sphere(first, shape), sphere(second, shape)


def errors(cs, us, **rule):
    """Squared error of every pair's response once all pairs are stored, `[trials, pairs]`."""
    _, memory = condition(cs, cs, us, **rule)
    return ((recall(memory, cs) - us) ** 2).sum(-1)[..., 0]


def hits(memory, cs, us):
    """Share of pairs whose response is nearest to their own value."""
    reads, items = recall(memory, cs)[:, :, 0], us[:, :, 0]
    best = jnp.argmax(jnp.einsum("bte,bse->bts", reads, items), -1)
    return (best == jnp.arange(cs.shape[1])).mean()
