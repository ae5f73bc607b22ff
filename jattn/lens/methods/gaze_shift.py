"""GIFT: gaze shifts say what matters, and it is amplified while the answer is written.

Over the query's tokens, a positive shift of attention from one to the next marks what they look up
in a span V: m_k is its mean over layers, heads and tokens, clipped to three standard deviations,
scaled to [0, 1], and w_k = exp(alpha m_k). In the last row, the half of the heads with the most
weight on V have it multiplied by w, by a ratio r of theirs together, and the half with the most on
the query have that multiplied by r, which keeps the two in balance. Then rows are normalised.

Reference: arXiv 2510.22067, and the authors' code. V is an image there.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.lens.methods.method import Method, example_maps


def gaze_shifts(
    probs: Float[Array, "*batch h t s"], queries: Int[Array, " n"], span: Int[Array, " k"]
) -> Float[Array, "*batch h n k"]:
    """`relu(p[q_i, k] - p[q_i - 1, k])`: what each query token newly looks at.

    Args:
        probs: maps.
        queries: rows of the query's content words, 1 at least.
        span: keys of V.
    """
    rise = probs[..., queries, :] - probs[..., queries - 1, :]
    return jax.nn.relu(rise)[..., span]


def top_half(mass: Float[Array, "*batch h"]) -> Bool[Array, "*batch h"]:
    """The h // 2 heads with the largest mass."""
    order = jnp.argsort(jnp.argsort(-mass, axis=-1), axis=-1)
    return order < mass.shape[-1] // 2


def gaze_saliency(shifts: Float[Array, "*batch n k"], alpha: Any = 5.0) -> Float[Array, " k"]:
    """w in [1, e^alpha] of each key of the span; 1 everywhere where all shifts are alike."""
    mean = shifts.reshape(-1, shifts.shape[-1]).mean(0)
    spread = 3 * mean.std(ddof=1)
    mean = jnp.clip(mean, mean.mean() - spread, mean.mean() + spread)
    reach = mean.max() - mean.min()
    scaled = (mean - mean.min()) / jnp.where(reach > 0, reach, 1)
    return jnp.exp(alpha * scaled)


def gaze_shift_amplification(
    probs: Float[Array, "*batch h t s"],
    saliency: Float[Array, " k"],
    span: Int[Array, " k"],
    query_span: Int[Array, " n"],
) -> Float[Array, "*batch h t s"]:
    """Maps with the last row amplified.

    Args:
        probs: maps.
        saliency: w of the span's keys; ones change nothing.
        span: keys of V.
        query_span: keys of the query's text.
    """
    last = probs[..., -1, :]
    on_span, on_query = last[..., span].sum(-1), last[..., query_span].sum(-1)
    weight = jnp.ones(probs.shape[-1], probs.dtype).at[span].set(saliency)
    looks = top_half(on_span)
    raised = last * jnp.where(looks[..., None], weight, 1)
    ours = lambda row: jnp.where(looks, row[..., span].sum(-1), 0).sum(-1)
    before = ours(last)
    ratio = jnp.where(before > 0, ours(raised) / jnp.where(before > 0, before, 1), 1.0)
    balance = jnp.ones_like(weight).at[query_span].set(0)
    factor = jnp.where(balance == 0, ratio[..., None, None], 1.0)
    raised = raised * jnp.where(top_half(on_query)[..., None], factor, 1)
    return probs.at[..., -1, :].set(raised / raised.sum(-1, keepdims=True))


def _example(key):
    maps, shifts = jax.random.split(key)
    saliency = gaze_saliency(jax.random.uniform(shifts, (2, 3, 4)))
    spans = dict(span=jnp.arange(1, 5), query_span=jnp.arange(5, 8))
    return dict(probs=example_maps(maps, 2, 4, 8, 8), saliency=saliency, **spans)


METHOD = Method(
    name="gaze_shift_amplification",
    title="GIFT: gaze shift-guided cross-modal fusion",
    arxiv="2510.22067",
    kind="maps",
    function=gaze_shift_amplification,
    example=_example,
    identity={"saliency": jnp.ones(4)},
)
