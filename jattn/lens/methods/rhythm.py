"""Preplan and anchor: two rhythms of attention, and credit for the tokens that set them.

    d[l, h]  mean distance that a head looks back; local heads have the least, global ones the most
    WAAD[t] = sum_s A_local[t, s] min(t - s, W)           high where a chunk begins
    FAI[s]  = mean over t in s + lo .. s + hi of A_global[t, s]      high at anchors

Advantages of tokens that are chosen by either are raised: A' = gamma A where A >= 0.

Reference: arXiv 2510.13554. The thresholds of the coupled rule are medians here.
"""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_number
from jattn.lens.methods.method import Method, example_maps

CREDITS = ("local", "global", "coupled")


def mean_distance(probs: Float[Array, "*heads t t"]) -> Float[Array, "*heads"]:
    """How far back a head looks, mean over rows, in tokens."""
    return (probs * _back(probs.shape[-1])).sum(-1).mean(-1)


def local_and_global(
    distance: Float[Array, "L h"], share: float = 0.3
) -> tuple[Bool[Array, "L h"], Bool[Array, "L h"]]:
    """The share of heads that look back least, and the share that look back most."""
    flat = distance.reshape(-1)
    order = jnp.argsort(jnp.argsort(flat)).reshape(distance.shape)
    count = int(share * flat.size)
    return order < count, order >= flat.size - count


def waad(local: Float[Array, "t t"], window: int = 10) -> Float[Array, " t"]:
    """Windowed average attention distance of each row, in [0, window].

    Example:
        >>> waad(jnp.eye(4, k=-2)).tolist()
        [0.0, 0.0, 2.0, 2.0]
    """
    return (local * jnp.minimum(_back(len(local)), window)).sum(-1)


def fai(distant: Float[Array, "t t"], lo: int = 10, hi: int = 50) -> Float[Array, " t"]:
    """Future attention influence of each key: what rows lo to hi behind it give; 0 without any."""
    back = _back(len(distant))
    rows = (back >= lo) & (back <= hi)
    return jnp.where(rows, distant, 0).sum(0) / jnp.maximum(rows.sum(0), 1)


def credit(
    distance: Float[Array, " t"],
    influence: Float[Array, " t"],
    *,
    kind: Literal["local", "global", "coupled"] = "coupled",
    share: float = 0.4,
    gain: float = 1.5,
    back: float = 0.5,
    reach: int = 3,
) -> Float[Array, " t"]:
    """gamma of each token, 1 at least.

    Args:
        distance: WAAD.
        influence: FAI.
        kind: `"local"` raises tokens where WAAD changes most, `"global"` those with the most FAI;
            `"coupled"` gives a part of what an anchor inside a chunk gets to the token that began
            the chunk.
        share: of tokens that are chosen.
        gain: gamma of those; 1 leaves all as they are.
        back: a, the part that goes back.
        reach: how many tokens before an anchor a chunk may have begun.
    """
    check_choice("kind", kind, CREDITS)
    check_number("gain", gain, least=1)
    change = jnp.abs(jnp.diff(distance, append=distance[-1:]))
    count = int(share * len(distance))
    top = lambda x: jnp.argsort(jnp.argsort(-x)) < count
    if kind == "local":
        return jnp.where(top(change), gain, 1.0)
    anchors = top(influence)
    if kind == "global":
        return jnp.where(anchors, gain, 1.0)
    index = jnp.arange(len(distance))
    before = index[:, None] - jnp.arange(1, reach + 1)
    steps = jnp.where(before >= 0, change[jnp.maximum(before, 0)], -jnp.inf)
    inside = (distance <= jnp.median(distance)) & (steps.max(-1) >= jnp.median(change))
    dominated = anchors & inside
    start = jnp.take_along_axis(before, steps.argmax(-1)[:, None], 1)[:, 0]
    target = jnp.where(dominated, start, len(index))
    began = jnp.zeros(len(index), bool).at[target].set(True, mode="drop")
    bonus = (anchors & ~dominated) + (1 - back) * dominated + back * began
    return 1 + (gain - 1) * jnp.minimum(bonus, 1.0)


def token_advantage(advantage: Float[Array, " t"], gamma: Float[Array, " t"]) -> Float[Array, " t"]:
    """Advantages, raised where they are not negative."""
    return jnp.where(advantage >= 0, gamma * advantage, advantage)


def _back(length: int) -> Any:
    index = jnp.arange(length)
    return jnp.maximum(index[:, None] - index, 0)


METHOD = Method(
    name="waad",
    title="Attention illuminates LLM reasoning: the preplan-and-anchor rhythm",
    arxiv="2510.13554",
    kind="readout",
    function=waad,
    example=lambda key: {"local": example_maps(key, 8, 8)},
    bounds=(0.0, 10.0),
)
