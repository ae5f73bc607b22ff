"""RefAM: stop words as magnets for attention that belongs nowhere (arXiv 2509.22650).

Of a cross-attention map M from P places to K tokens, the columns of stop words and of global sinks
(a mean over places above c times the median column's) are dropped, and the heat map is the mean of
the content's columns, scaled to [0, 1]. Words that are appended draw weight off all others.
The criterion of sinks is ours.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.lens.edits import move_budget
from jattn.lens.methods.method import Method


def global_sinks(maps: Float[Array, "p k"], factor: float = 10.0) -> Bool[Array, " k"]:
    """Tokens that get much from everywhere."""
    mean = maps.mean(0)
    return mean >= factor * jnp.median(mean)


def filtered_heatmap(
    maps: Float[Array, "p k"], content: Bool[Array, " k"], *, factor: float = 10.0
) -> Float[Array, " p"]:
    """Heat map of the content without stop words and sinks, in [0, 1].

    Args:
        maps: weights of places on tokens.
        content: False = a stop word or a magnet.
        factor: c of `global_sinks`.
    """
    used = content & ~global_sinks(maps, factor)
    heat = jnp.where(used, maps, 0).sum(-1) / jnp.maximum(used.sum(), 1)
    reach = heat.max() - heat.min()
    return (heat - heat.min()) / jnp.where(reach > 0, reach, 1)


def redirected(
    maps: Float[Array, "p k"], magnets: Bool[Array, " k"], *, factor: float = 10.0
) -> Float[Array, "p k"]:
    """Maps with the sinks' weight on the magnets, in proportion to what these have."""
    sinks = global_sinks(maps, factor) & ~magnets
    return move_budget(maps, sinks, magnets, 0.0)


def _example(key):
    maps = jax.nn.softmax(jax.random.normal(key, (9, 6)).at[:, 0].add(5.0), -1)
    return dict(maps=maps, content=jnp.arange(6) < 4)


METHOD = Method(
    name="filtered_heatmap",
    title="RefAM: attention magnets for zero-shot referral segmentation",
    arxiv="2509.22650",
    kind="readout",
    function=filtered_heatmap,
    example=_example,
    bounds=(0.0, 1.0),
)
