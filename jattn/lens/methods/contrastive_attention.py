"""CARVE: attention under a question over attention under a general request (arXiv 2509.06461).

    C = Q / (G + lam),     S = sum_t (t + 1) sum_l C[t, l]

with Q and G the maps of the last row on a span V (head means), by generation step t and layer l.
What a context draws whatever is asked divides out: Q = s n and G = n give C = s. The top share of S
falls into connected regions, of which those with the largest sums are kept. V is an image there;
in one dimension regions are runs of tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from jattn.lens.methods.method import Method


def contrastive_attention(
    query_maps: Float[Array, "t l *span"],
    general_maps: Float[Array, "t l *span"],
    lam: float = 1e-8,
) -> Float[Array, "*span"]:
    """The fused contrast S of the layers that are given.

    Args:
        query_maps: Q.
        general_maps: G, of the same steps and layers.
        lam: keeps the division finite.

    Example:
        >>> noise = jnp.array([[[0.5, 0.1]]])
        >>> contrastive_attention(noise * jnp.array([2.0, 3.0]), noise).round().tolist()
        [2.0, 3.0]
    """
    contrast = (query_maps / (general_maps + lam)).sum(1)
    steps = jnp.arange(1, len(contrast) + 1, dtype=contrast.dtype)
    return jnp.tensordot(steps, contrast, 1)


def span_entropy(maps: Float[Array, "*batch k"]) -> Float[Array, "*batch"]:
    """Entropy of a row's weights on a span by themselves, nats: how scattered attention is."""
    share = maps / maps.sum(-1, keepdims=True)
    return -jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0).sum(-1)


def select_regions(
    score: Float[Array, "*span"], *, top: float = 0.2, share: float = 0.2, least: int = 3
) -> np.ndarray:
    """The best connected regions of what scores highest; on the host, in one or two dimensions.

    Args:
        score: S.
        top: share of places that are looked at, the highest.
        share: of the regions that are kept, by their sums; at least
        least: so many.

    Returns:
        A bool mask of the score's shape.
    """
    array = np.asarray(score, np.float64)
    high = array >= np.percentile(array, 100 * (1 - top))
    labelled: Any = ndimage.label(high)  # neighbours share a side
    labels, count = labelled
    sums = ndimage.sum(array, labels, range(1, count + 1))
    kept = np.argsort(-sums)[: max(least, int(share * count))] + 1
    return np.isin(labels, kept)


def bounding_box(mask: np.ndarray) -> np.ndarray:
    """First and behind-last place by axis, the last axis first: x0, y0, x1, y1 of an image."""
    places = np.argwhere(mask)[:, ::-1]
    return np.concatenate([places.min(0), places.max(0) + 1])


def _example(key):
    maps = jax.random.uniform(key, (2, 3, 2, 12), minval=0.01)
    return dict(query_maps=maps[0], general_maps=maps[1])


METHOD = Method(
    name="contrastive_attention",
    title="Focusing by contrastive attention: enhancing VLMs' visual reasoning",
    arxiv="2509.06461",
    kind="readout",
    function=contrastive_attention,
    example=_example,
    bounds=(0.0, np.inf),
)
