"""PINE: documents without order, its dense and looped forms, and what it is without documents."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jattn
from jattn.attention.positions import rotary
from jattn.mechanisms.softmax import position_invariant as pine
from jattn.nn import Transformer, TransformerConfig

B, H, G, D = 1, 4, 2, 4
PREFIX, DOCUMENTS, SUFFIX = 2, (2, 3, 1), 2
T = PREFIX + sum(DOCUMENTS) + SUFFIX
SLICES = pine.Layout(PREFIX, DOCUMENTS).slices


@jax.enable_x64(False)
def draw(kv_heads=G):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((B, T, H, D), (B, T, kv_heads, D), (B, T, kv_heads, D))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


QKV = draw()


compiled = jax.jit(pine.position_invariant_attention, static_argnames=("prefix", "documents"))


def attention(*qkv, prefix=PREFIX, documents=DOCUMENTS, mask=None):
    return compiled(*qkv, prefix=prefix, documents=documents, mask=mask)


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def rotated(x, position):
    return np.asarray(rotary(jnp.asarray(x)[None, None, None], jnp.array([position])))[0, 0, 0]


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def looped(q, k, v):
    """One query and head after the other, documents sorted, a rotation for every pair."""
    q, k, v = (np.asarray(x)[0] for x in (q, k, v))
    k, v = (np.repeat(x, H // x.shape[1], axis=1) for x in (k, v))
    end = PREFIX + sum(DOCUMENTS)
    owner = np.full(T, -1)
    for d, at in enumerate(SLICES):
        owner[at] = d
    base = [end - sum(owner == owner[i]) + i - SLICES[owner[i]].start if owner[i] >= 0 else i
            for i in range(T)]  # fmt: skip
    out = np.zeros((T, H, D))

    def asks(i, h):
        others = [j for j in range(PREFIX, end) if owner[j] != owner[i] or owner[i] < 0]
        weights = softmax(np.array([q[i, h] @ k[j, h] for j in others]) / D**0.5)
        return np.array([
            np.mean([w for j, w in zip(others, weights, strict=True) if owner[j] == d] or [np.inf])
            for d in range(len(DOCUMENTS))
        ])  # fmt: skip

    for i in range(T):
        for h in range(H):
            shift = [0] * len(DOCUMENTS)
            if i >= PREFIX:
                group = [i] if owner[i] < 0 else np.flatnonzero(owner == owner[i])
                importance = np.sum([asks(a, h) for a in group], axis=0)
                total = 0
                for d in sorted(range(len(DOCUMENTS)), key=lambda d: -importance[d]):
                    shift[d], total = total, total + DOCUMENTS[d]
            places = [base[j] - (shift[owner[j]] if owner[j] >= 0 else 0) for j in range(T)]
            seen = [j for j in range(T)
                    if (j <= i or (owner[i] >= 0 and 0 <= owner[j] != owner[i]))
                    and (i >= PREFIX or j <= i)]  # fmt: skip
            assert max(places[j] for j in seen) <= base[i]
            assert len({places[j] for j in seen}) == len(seen)  # documents never overlap
            scores = [rotated(q[i, h], base[i]) @ rotated(k[j, h], places[j]) for j in seen]
            out[i, h] = softmax(np.array(scores) / D**0.5) @ v[seen, h]
    return out[None]


def test_against_the_dense_loop():
    near(attention(*QKV), looped(*QKV), 3e-6)


def test_order_does_not_matter_at_all(x64):
    q, k, v = (x.astype(jnp.float64) for x in QKV)
    y = attention(q, k, v)
    order = (2, 0, 1)
    index = np.concatenate([
        np.arange(PREFIX), *(np.arange(T)[SLICES[d]] for d in order), np.arange(T - SUFFIX, T)
    ])  # fmt: skip
    others = [x[:, index] for x in (q, k, v)]
    turned = attention(*others, documents=tuple(DOCUMENTS[d] for d in order))
    near(turned, y[:, index], 1e-14)
    # Ordinary attention does mind.
    plain = [attention(*qkv, prefix=0, documents=()) for qkv in (others, (q, k, v))]
    assert np.abs(plain[0][:, -1] - plain[1][:, -1]).max() > 0.1


def test_one_document_or_none_is_causal_attention():
    q, k, v = QKV
    plain = lambda q, k, v: jattn.attend(rotary(q), rotary(k), v, mask=jattn.masks.causal())
    expected = jax.jit(plain)(q, k, v)
    for documents in ((), (5,)):
        near(attention(q, k, v, documents=documents), expected, 3e-6)


def test_equal_documents_answer_equally_up_to_the_tie():
    copy = jnp.array([0, 1, 2, 3, 2, 3, 4, 5])
    q, k, v = (x[:, copy] for x in QKV)
    y = attention(q, k, v, documents=(2, 2))
    near(y[:, 2:4], y[:, 4:6], 1e-6)


def test_importance_and_shifts():
    q, k, _ = QKV
    importance = lambda q, k: pine.document_importance(q, k, prefix=PREFIX, documents=DOCUMENTS)
    found = np.asarray(jax.jit(importance)(q, k))
    lengths = np.array(DOCUMENTS)
    # Behind the documents, mean weights times lengths are a distribution.
    near((found[:, -SUFFIX:] * lengths).sum(-1), np.ones((B, SUFFIX, H)))
    for d, at in enumerate(SLICES):
        others = np.delete(np.arange(len(DOCUMENTS)), d)
        assert np.isinf(found[:, at, :, d]).all()
        near((found[:, at][..., others] * lengths[others]).sum(-1)[:, 0], DOCUMENTS[d], 1e-5)
    moved = np.asarray(pine.shifts(jnp.asarray(found), DOCUMENTS))
    for importance, shift in zip(found.reshape(-1, 3), moved.reshape(-1, 3), strict=True):
        order = np.argsort(-importance, stable=True)
        np.testing.assert_array_equal(shift[order], np.cumsum([0, *lengths[order][:-1]]))


def test_last_queries_alone_and_padding():
    q, k, v = QKV
    near(attention(q[:, -1:], k, v), attention(q, k, v)[:, -1:])
    real = jnp.ones((B, T), bool).at[:, SLICES[1].stop - 1].set(False)
    y = attention(q, k, v, mask=real)
    spoilt = (jnp.where(real[..., None, None], x, 9.0) for x in QKV)
    other = attention(*spoilt, mask=real)
    near(jnp.where(real[..., None, None], y - other, 0), np.zeros(y.shape))


def test_a_whole_model_does_not_see_the_order():
    """Parameters trained with softmax attention serve it; all layers inherit the invariance."""
    settings: Any = dict(vocab_size=11, dim=8, heads=2, layers=2, mlp_ratio=1.0)
    config = TransformerConfig(**settings, positions="rotary")
    trained = nnx.state(Transformer(config, rngs=nnx.Rngs(0)))

    def answer(config, tokens):
        definition = nnx.graphdef(nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0))))
        run = lambda state, tokens: nnx.merge(definition, state)(tokens)[0, -1]
        return jax.jit(run)(trained, jnp.array([tokens]))

    def without_order(*documents):
        mechanism = ("position_invariant_attention", {"prefix": 1, "documents": documents})
        return TransformerConfig(**settings, positions="none", mechanisms=mechanism)

    logits = answer(without_order(2, 3), (1, 2, 3, 4, 5, 6, 7))
    near(answer(without_order(3, 2), (1, 4, 5, 6, 2, 3, 7)), logits, 1e-5)
    assert np.abs(answer(config, (1, 2, 3, 4, 5, 6, 7)) - logits).max() > 1e-3


def test_bad_input_is_named(plain_checks):
    q, k, v = QKV
    for call, message in (
        (lambda: attention(q, k, v, prefix=-1), "prefix: expected at least 0, got -1"),
        (lambda: attention(q, k, v, documents=(2, 0)), "documents: expected at least 1 token each"),
        (lambda: attention(q, k, v, documents=(9, 9)), "documents: end at token 20, but there are"),
        (
            lambda: attention(q[:, 1:], k, v, prefix=0, documents=(9,)),
            "query: expected all 10 tokens, or at",
        ),
        (lambda: pine.make(dim=6, heads=2), "heads: expected an even dim / heads, got 6 / 2"),
        (
            lambda: pine.make(dim=8, heads=2).apply(
                pine.make(dim=8, heads=2).init(jax.random.key(0)),
                jnp.ones((1, 2, 8)),
                positions=jnp.zeros((1, 2), int),
            ),
            "positions: the layout of the documents gives them",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
