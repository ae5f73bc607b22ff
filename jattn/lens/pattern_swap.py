"""Attention patterns of one model put into another (arXiv 2510.21866).

    o = A' v,   A' = (1 - mix) A + mix A_donor     in the chosen layers and heads

with the values, the output projection and all else of the model itself. What is left of its
abilities tells whether a pattern and the values behind it belong together.

The paper does not tell its map between models of different sizes. Here layer l of L takes that of
round(l (L_donor - 1) / (L - 1)), and head h that of h mod h_donor.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.attention import attend
from jattn.checks import check_shape
from jattn.lens.edits import At, heads_of
from jattn.lens.run import run
from jattn.nn import Transformer, TransformerConfig
from jattn.nn.transformer import SOFTMAX_SIZES

SOFTMAX = "softmax_attention"


class Pattern(NamedTuple):
    """Queries and keys, which a layer's weights are made of: they are handed on without a `[t, s]`.

    Attributes:
        query: ready to be compared, `[b, t, h, d]`.
        key: the same, `[b, t, g, d]`.
    """

    query: Float[Array, "b t h d"]
    key: Float[Array, "b t g d"]


def attention_patterns(
    model: Transformer, config: TransformerConfig, tokens: Int[Array, "b t"]
) -> list[Pattern]:
    """The pattern of every layer on these tokens.

    Args:
        model: made from `config`, of softmax attention in all layers.
        config: its configuration.
        tokens: `[b, t]`.

    Raises:
        ValueError: another mechanism, or an option that makes it more than a softmax.

    Example:
        >>> from flax import nnx
        >>> config = TransformerConfig(vocab_size=50, dim=16, layers=2)
        >>> model = Transformer(config, rngs=nnx.Rngs(0))
        >>> [p.query.shape for p in attention_patterns(model, config, jnp.zeros((1, 7), int))]
        [(1, 7, 4, 4), (1, 7, 4, 4)]
    """
    _check_layers(config)
    found = run(model, tokens, record=("q", "k"))[1]
    return [Pattern(*pair) for pair in zip(found["q"], found["k"], strict=True)]


def with_patterns(
    model: Transformer,
    config: TransformerConfig,
    tokens: Int[Array, "b t"],
    patterns: Sequence[Pattern],
    *,
    layers: Collection[int] | None = None,
    heads: Collection[int] | None = None,
    mix: Float[Array, ""] | float = 1.0,
) -> Float[Array, "b t vocab"]:
    """Logits of a model that attends by other patterns than its own.

    Args:
        model: made from `config`, of softmax attention in all layers.
        config: its configuration.
        tokens: `[b, t]`.
        patterns: of any number of layers and heads, on as many tokens. Zeros are uniform attention.
        layers: where to change, counted from 0; default all.
        heads: the same of heads.
        mix: share of the other pattern, 0 to 1.

    Returns:
        `[b, t, vocab]`.

    Raises:
        ValueError: shapes that do not fit, layers or heads that there are not, or another
            mechanism.

    Reference:
        arXiv 2510.21866.

    Example:
        >>> from flax import nnx
        >>> config = TransformerConfig(vocab_size=50, dim=16)
        >>> model, tokens = Transformer(config, rngs=nnx.Rngs(0)), jnp.ones((1, 7), int)
        >>> own = attention_patterns(model, config, tokens)
        >>> bool((with_patterns(model, config, tokens, own) == model(tokens)).all())
        True
    """
    for index, pattern in enumerate(patterns):
        sizes = dict(zip("bt", tokens.shape, strict=True))
        check_shape(f"patterns[{index}].query", pattern.query, "b t h d", sizes)
        check_shape(f"patterns[{index}].key", pattern.key, "b t g d", sizes)
    layers = _chosen("layers", layers, config.layers)
    heads = _chosen("heads", heads, config.heads)
    chosen = [(layer, head) for layer in layers for head in heads]
    share = mix * heads_of(chosen, config.layers, config.heads)[..., None]
    _check_layers(config)
    donors = [
        _of_heads(patterns[_matching(layer, config.layers, len(patterns))], config.heads)
        for layer in range(config.layers)
    ]
    query, key = (jnp.stack(arrays) for arrays in zip(*donors, strict=True))
    return run(model, tokens, edits=[At("z", _mixed, (share, query, key))])[0]


def _mixed(z, data, seen):
    """Reads by another pattern, of the model's own values."""
    share, query, key = data
    other = attend(query, key, seen["v"], mask=seen["mask"])
    return (1 - share) * z + share * other


def swap_pattern(
    model: Transformer,
    config: TransformerConfig,
    tokens: Int[Array, "b t"],
    donor: Transformer,
    donor_config: TransformerConfig,
    *,
    donor_tokens: Int[Array, "b t"] | None = None,
    layers: Collection[int] | None = None,
    heads: Collection[int] | None = None,
    mix: Float[Array, ""] | float = 1.0,
) -> Float[Array, "b t vocab"]:
    """Logits of a model that attends as another one does on the same tokens.

    Args:
        model: made from `config`, of softmax attention in all layers.
        config: its configuration.
        tokens: `[b, t]`.
        donor: whose patterns it takes.
        donor_config: the donor's configuration.
        donor_tokens: what the donor reads, `[b, t]`; default the same.
        layers: where to change, counted from 0; default all.
        heads: the same of heads.
        mix: share of the donor's pattern, 0 to 1.

    Returns:
        `[b, t, vocab]`.

    Raises:
        ValueError: as `with_patterns`.

    Reference:
        arXiv 2510.21866.

    Example:
        >>> from flax import nnx
        >>> config = TransformerConfig(vocab_size=50, dim=16)
        >>> small = TransformerConfig(vocab_size=50, dim=8, heads=2, layers=1)
        >>> model, donor = (Transformer(c, rngs=nnx.Rngs(0)) for c in (config, small))
        >>> swap_pattern(model, config, jnp.ones((1, 7), int), donor, small).shape
        (1, 7, 50)
    """
    read = tokens if donor_tokens is None else donor_tokens
    patterns = attention_patterns(donor, donor_config, read)
    return with_patterns(model, config, tokens, patterns, layers=layers, heads=heads, mix=mix)


def _check_layers(config: TransformerConfig) -> None:
    """Refuses layers whose attention is more than a softmax of scores."""
    for name, options in config.per_layer():
        more = [n for n, value in options.items() if value and n not in SOFTMAX_SIZES]
        if name != SOFTMAX or more:
            got = f"{name} with {', '.join(more)}" if more else name
            raise ValueError(f"config: expected layers of plain {SOFTMAX}, got {got}")


def _chosen(name: str, indices: Collection[int] | None, count: int) -> tuple[int, ...]:
    indices = tuple(range(count)) if indices is None else tuple(indices)
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f"{name}: expected any of 0 to {count - 1}, got {index}")
    return indices


def _matching(layer: int, layers: int, donor_layers: int) -> int:
    return round(layer * (donor_layers - 1) / max(layers - 1, 1))


def _of_heads(pattern: Pattern, heads: int) -> Pattern:
    """The pattern of as many heads as the model has."""
    there = pattern.query.shape[2]
    key = jnp.repeat(pattern.key, there // pattern.key.shape[2], axis=2)
    head = jnp.arange(heads) % there
    return Pattern(pattern.query[:, :, head], key[:, :, head])
