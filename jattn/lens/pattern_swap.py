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
from flax import nnx
from jaxtyping import Array, Float, Int

from jattn.attention import attend
from jattn.checks import check_shape
from jattn.mechanisms.softmax.attention_mixer import attention_mixer
from jattn.nn import Transformer, TransformerConfig

SOFTMAX = "softmax_attention"
# Options that leave attention a softmax of scores of queries and keys.
SIZES = ("dim", "heads", "causal", "kv_heads", "rotary", "window")


class Pattern(NamedTuple):
    """What a layer's attention weights are made of: no array `[t, s]` is needed to hand them on.

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
        >>> config = TransformerConfig(vocab_size=50, dim=16, layers=2)
        >>> model = Transformer(config, rngs=nnx.Rngs(0))
        >>> [p.query.shape for p in attention_patterns(model, config, jnp.zeros((1, 7), int))]
        [(1, 7, 4, 4), (1, 7, 4, 4)]
    """
    found: list[Pattern] = []

    def core(params, query, key, value, scene):
        found.append(Pattern(query, key))
        return attend(query, key, value, mask=scene.mask)

    _with_cores(model, config, [core] * config.layers)(tokens)
    return found


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
    # `[h]`; the other heads keep all of their own.
    share = mix * jnp.zeros(config.heads).at[jnp.asarray(heads, int)].set(1.0)[:, None]

    def core_of(layer):
        donor = _of_heads(patterns[_matching(layer, config.layers, len(patterns))], config.heads)

        def core(params, query, key, value, scene):
            own = attend(query, key, value, mask=scene.mask)
            if layer not in layers:
                return own
            other = attend(donor.query, donor.key, value, mask=scene.mask)
            return ((1 - share) * own + share * other).astype(own.dtype)

        return core

    return _with_cores(model, config, [core_of(i) for i in range(config.layers)])(tokens)


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
        >>> config = TransformerConfig(vocab_size=50, dim=16)
        >>> small = TransformerConfig(vocab_size=50, dim=8, heads=2, layers=1)
        >>> model, donor = (Transformer(c, rngs=nnx.Rngs(0)) for c in (config, small))
        >>> swap_pattern(model, config, jnp.ones((1, 7), int), donor, small).shape
        (1, 7, 50)
    """
    read = tokens if donor_tokens is None else donor_tokens
    patterns = attention_patterns(donor, donor_config, read)
    return with_patterns(model, config, tokens, patterns, layers=layers, heads=heads, mix=mix)


def _with_cores(model: Transformer, config: TransformerConfig, cores: Sequence) -> Transformer:
    """A copy whose layers have the same projections around other cores."""
    changed = nnx.clone(model)
    for block, (name, options), core in zip(changed.blocks, config.per_layer(), cores, strict=True):
        more = [n for n, value in options.items() if value and n not in SIZES]
        if name != SOFTMAX or more:
            got = f"{name} with {', '.join(more)}" if more else name
            raise ValueError(f"config: expected layers of plain {SOFTMAX}, got {got}")
        sizes = {n: value for n, value in options.items() if n in SIZES}
        block.mixer.pair = attention_mixer(name, core=core, **sizes)
    return changed


def _chosen(name: str, places: Collection[int] | None, count: int) -> tuple[int, ...]:
    places = tuple(range(count)) if places is None else tuple(places)
    for place in places:
        if not 0 <= place < count:
            raise ValueError(f"{name}: expected any of 0 to {count - 1}, got {place}")
    return places


def _matching(layer: int, layers: int, donor_layers: int) -> int:
    return round(layer * (donor_layers - 1) / max(layers - 1, 1))


def _of_heads(pattern: Pattern, heads: int) -> Pattern:
    """The pattern of as many heads as the model has."""
    there = pattern.query.shape[2]
    key = jnp.repeat(pattern.key, there // pattern.key.shape[2], axis=2)
    head = jnp.arange(heads) % there
    return Pattern(pattern.query[:, :, head], key[:, :, head])
