"""PINE: inference that does not see the order of documents (arXiv 2407.01100).

    tokens       prefix (a) | document 0 .. n-1 (L_d tokens each, R in all) | suffix
    positions    every document ends at a + R - 1; prefix and suffix are as usual
    a query      takes the documents in the order of their importance to it, its own first, and
                 document j as many positions nearer to the start as the ones before j are long

    shift_j = sum of L_k over the documents k before j
    o = sum_k softmax_k( rotary(q, p) . rotary(k, p_k - shift_j) / sqrt(d) ) v_k

Documents see the prefix and each other in whole; within a document, and behind the documents,
attention is causal. The importance of a document is the mean weight of its keys in a softmax
without positions over all other documents, summed over the tokens of a document that asks, and of
every single token in the suffix.

Distinctive: no training; a decoder with rotary positions gives, whatever the order of the
documents, the same answer. Rotating a query further by shift_j is the same as moving the keys, so
keys are rotated once and the documents are partial attentions that are merged.

Limits: one document, or none, is causal softmax attention with rotary positions.
"""

import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend, masks, merge
from jattn.attention.positions import rotary
from jattn.checks import check_count, check_number, check_shape
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Parts


class Layout(NamedTuple):
    """Layout of the documents in a sequence.

    Attributes:
        prefix: tokens before them.
        documents: tokens of each.
    """

    prefix: int
    documents: tuple[int, ...]

    @property
    def end(self) -> int:
        """Index of the first token behind the documents."""
        return self.prefix + sum(self.documents)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The tokens of each document."""
        starts = [self.prefix + sum(self.documents[:d]) for d in range(len(self.documents))]
        return tuple(slice(i, i + n) for i, n in zip(starts, self.documents, strict=True))

    def positions(self, length: int) -> Int[np.ndarray, " t"]:
        """Positions of all tokens before any shift: every document ends where the suffix begins.

        Example:
            >>> Layout(1, (2, 3)).positions(8).tolist()
            [0, 4, 5, 3, 4, 5, 6, 7]
        """
        documents = [np.arange(self.end - count, self.end) for count in self.documents]
        return np.concatenate([np.arange(self.prefix), *documents, np.arange(self.end, length)])

    def positions_of(self, real: Bool[Array, "b s"]) -> Int[Array, "b s"]:
        """Positions where only some tokens are real: the others have none.

        Example:
            >>> Layout(1, (2, 3)).positions_of(jnp.arange(8)[None] != 1).tolist()
            [[0, 3, 4, 2, 3, 4, 5, 6]]
        """
        parts = [slice(0, self.prefix), *self.slices, slice(self.end, real.shape[1])]
        ranks = [jnp.cumsum(real[:, at], axis=1) - 1 for at in parts]
        counts = [real[:, at].sum(1, keepdims=True) for at in parts]
        end = functools.reduce(operator.add, counts[:-1])
        starts = [jnp.zeros_like(end), *(end - count for count in counts[1:-1]), end]
        shifted = [start + rank for start, rank in zip(starts, ranks, strict=True)]
        return jnp.maximum(jnp.concatenate(shifted, axis=1), 0)


def document_importance(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    *,
    prefix: int,
    documents: tuple[int, ...],
    mask: Bool[Array, "b s"] | None = None,
) -> Float[Array, "b t h n"]:
    """Measures how much each query would attend to each document, if there were no positions.

        w = softmax over the keys of all documents (of all others, for a document's queries)
        importance_j = mean of w over the keys of j

    For a document's queries it is the sum over its tokens, the same for all of them, and infinite
    for itself.

    Args:
        query: not rotated, `[b, t, h, d]`; of all s tokens, or of the last t, all of them behind
            the documents.
        key: not rotated, `[b, s, g, d]`, g a divisor of h.
        prefix: tokens before the documents.
        documents: tokens of each of n documents, 1 at least.
        mask: True = a real token; others neither ask nor are counted.

    Returns:
        `[b, t, h, n]`, float32 at least.

    Raises:
        ValueError: shapes or lengths that do not fit.

    Reference:
        arXiv 2407.01100.

    Example:
        >>> q = jnp.ones((1, 1, 1, 2))
        >>> k = jnp.array([0.0, 0.0, 3.0, 0.0]).reshape(1, 4, 1, 1) * jnp.ones(2)
        >>> found = document_importance(q, k, prefix=0, documents=(2, 1))
        >>> [round(float(x), 3) for x in found[0, 0, 0]]
        [0.014, 0.972]
    """
    layout, real = _check(query, key, prefix, documents, mask)
    # The mass on a document is all that is asked, and the log-sum-exp over its keys tells it.
    lse = jnp.stack(
        [
            attend(
                query, key[:, at], key[:, at, :, :1], mask=real[:, None, None, at], return_lse=True
            )[1]
            for at in layout.slices
        ],
        axis=-1,
    )
    own = np.zeros((query.shape[1], 1, len(documents)), bool)
    inside = query.shape[1] == key.shape[1]
    for d, at in enumerate(layout.slices if inside else ()):
        own[at, :, d] = True
    # Finite: a query of the only document has no other to attend to.
    least = jnp.finfo(lse.dtype).min
    mass = jax.nn.softmax(jnp.where(own | (lse == -jnp.inf), least, lse), axis=-1)
    count = jnp.stack([real[:, at].sum(1) for at in layout.slices], axis=-1)
    found = mass / jnp.maximum(count, 1)[:, None, None]
    for at in layout.slices if inside else ():
        together = jnp.where(real[:, at, None, None], found[:, at], 0).sum(1, keepdims=True)
        found = found.at[:, at].set(together)
    return jnp.where(own, jnp.inf, found)


def shifts(
    importance: Float[Array, "*batch n"], documents: tuple[int, ...] | Int[Array, "*#batch n"]
) -> Int[Array, "*batch n"]:
    """By how much each document moves towards the start: what comes before it is that long.

    Args:
        importance: the larger, the nearer; of equal ones the first comes first.
        documents: tokens of each; an array where batch entries differ.

    Example:
        >>> shifts(jnp.array([0.1, 0.7, 0.2]), (5, 2, 3)).tolist()
        [5, 0, 2]
    """
    order = jnp.argsort(-importance, axis=-1, stable=True)
    lengths = jnp.broadcast_to(jnp.asarray(documents, jnp.int32), order.shape)
    ordered = jnp.take_along_axis(lengths, order, -1)
    return jnp.take_along_axis(jnp.cumsum(ordered, -1) - ordered, jnp.argsort(order, -1), -1)


def position_invariant_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s gv e"],
    *,
    prefix: int = 0,
    documents: tuple[int, ...] = (),
    base: float = 10000.0,
    mask: Bool[Array, "b s"] | None = None,
) -> Float[Array, "b t h e"]:
    """Causal attention in which documents have no order.

    Args:
        query: not rotated, `[b, t, h, d]`; of all s tokens, or of the last t, all of them behind
            the documents.
        key: not rotated, `[b, s, g, d]`, g a divisor of h.
        value: `[b, s, gv, e]`, gv a divisor of h.
        prefix: tokens before the documents.
        documents: tokens of each document, 1 at least; what follows them is the suffix.
        base: of the rotary positions.
        mask: True = a real token; others are not seen, and have no position.

    Returns:
        `[b, t, h, e]`, in query's dtype. Where two documents are equally important, the order
        they are given in decides.

    Raises:
        ValueError: shapes or lengths that do not fit.

    Reference:
        arXiv 2407.01100.

    Example:
        >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 9, 2, 4))
        >>> turn = jnp.array([0, 4, 5, 6, 1, 2, 3, 7, 8])  # two documents of 3 tokens
        >>> layout = dict(prefix=1, documents=(3, 3))
        >>> attention = jax.jit(functools.partial(position_invariant_attention, **layout))
        >>> permuted = attention(q[:, turn], k[:, turn], v[:, turn])
        >>> bool(jnp.allclose(attention(q, k, v)[:, turn], permuted, atol=1e-5))
        True
    """
    layout, real = _check(query, key, prefix, documents, mask)
    check_shape("value", value, "b s gv e", {"b": key.shape[0], "s": key.shape[1]})
    length = key.shape[1]
    offset = length - query.shape[1]
    index = np.arange(offset, length)
    if mask is None:
        key_positions = jnp.asarray(layout.positions(length), jnp.int32)[None]
    else:
        key_positions = layout.positions_of(real)
    key_positions = jnp.broadcast_to(key_positions, key.shape[:2])
    query_positions = key_positions[:, offset:, None]
    keys = rotary(key, key_positions, base=base)

    def part(query, at: slice, sees):
        there = masks.from_array(real[:, None, None, at])
        return attend(query, keys[:, at], value[:, at], mask=sees & there, return_lse=True)

    straight = rotary(query, query_positions[..., 0], base=base)
    parts = [
        part(straight, at, masks.causal(offset - at.start))
        for at in (slice(0, prefix), slice(layout.end, length))
        if at.start < at.stop
    ]
    if documents:
        counts = [real[:, at].sum(1) for at in layout.slices]
        lengths = documents if mask is None else jnp.stack(counts, -1)[:, None, None]
        shift = shifts(
            document_importance(query, key, prefix=prefix, documents=documents, mask=mask),
            lengths,
        )
        for d, at in enumerate(layout.slices):
            earlier = (index >= prefix) & (index < at.start)
            sees = masks.causal(offset - at.start) | masks.from_array(jnp.asarray(earlier)[:, None])
            parts.append(
                part(_rotary_by_head(query, query_positions + shift[..., d], base), at, sees)
            )
    return functools.reduce(merge, parts)[0]


def _rotary_by_head(
    x: Float[Array, "b t h d"], positions: Int[Array, "b t h"], base: float
) -> Float[Array, "b t h d"]:
    """Rotary positions that differ between heads."""
    b, t, h, d = x.shape
    as_tokens = x.reshape(b, t * h, 1, d)
    return rotary(as_tokens, positions.reshape(b, t * h), base=base).reshape(x.shape)


def _check(query, key, prefix, documents, mask) -> tuple[Layout, Bool[Array, "b s"]]:
    """The layout and which tokens are real; raises ValueError where something does not fit."""
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b s g d", sizes)
    real = jnp.ones(key.shape[:2], bool) if mask is None else jnp.asarray(mask, bool)
    check_shape("mask", real, "b s", sizes)
    layout = _layout(prefix, documents)
    t, s = sizes["t"], sizes["s"]
    if layout.end > s:
        raise ValueError(f"documents: end at token {layout.end}, but there are {s}")
    if t != s and t > s - layout.end:
        raise ValueError(
            f"query: expected all {s} tokens, or at most the {s - layout.end} behind the "
            f"documents, got {t}"
        )
    return layout, real


def _layout(prefix: int, documents: tuple[int, ...]) -> Layout:
    check_count("prefix", prefix, 0)
    if not isinstance(documents, Sequence) or isinstance(documents, str):
        raise ValueError(f"documents: expected the tokens of each, got {documents!r}")
    if any(isinstance(count, int) and count < 1 for count in documents):
        raise ValueError(f"documents: expected at least 1 token each, got {tuple(documents)}")
    for count in documents:
        check_count("documents", count)
    return Layout(prefix, tuple(documents))


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    kv_heads: int | None = None,
    prefix: int = 0,
    documents: tuple[int, ...] = (),
    base: float = 10000.0,
) -> Mixer:
    """Makes the mixer; its parameters are those of `softmax_attention` with rotary positions.

    So a model that was trained with that reads documents without order once it is made with this
    in its layers (and `positions="none"`: this rotates by itself) and given its parameters.
    Without documents, the default, it is that. Tokens that it generates belong to the suffix.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: True; there is no other form. Documents see each other in whole nevertheless.
        kv_heads: key-value heads g, a divisor of h; default h.
        prefix: tokens before the documents.
        documents: tokens of each document.
        base: of the rotary positions.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4, prefix=1, documents=(2, 2))
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    name = "position_invariant_attention"
    if causal is not True:
        raise ValueError(f"causal: {name} has only a causal form; pass causal=True")
    kv_heads = heads if kv_heads is None else kv_heads
    check_heads(dim, heads, kv_heads)
    if dim // heads % 2:
        raise ValueError(f"heads: expected an even dim / heads, got {dim} / {heads}")
    documents = _layout(prefix, documents).documents
    check_number("base", base, above=0)

    def init(key):
        return qkvo_init(key, dim, heads, kv_heads=kv_heads)

    def apply(parts, params, given):
        if given.positions is not None:
            raise ValueError("positions: the layout of the documents gives them; expected None")
        maps = parts.project(params, given.x, given.source)
        query, key, value = split_qkv(maps, heads, kv_heads)
        out = position_invariant_attention(
            query, key, value, prefix=prefix, documents=documents, base=base, mask=given.real
        )
        return parts.output(params, merge_heads(out), given.x)

    return framed_parts(
        name,
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        takes="padding",
        causal=True,
    )


MECHANISM = Mechanism(
    name="position_invariant_attention",
    title="PINE: position-invariant inference over documents",
    arxiv="2407.01100",
    family="softmax",
    equation="o_i = sum_j softmax_j(rotary(q_i, p_i) . rotary(k_j, p_j - shift_ij) / sqrt(d)) v_j",
    core=position_invariant_attention,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=False,
    cost="quadratic",
    documents="never",
)
