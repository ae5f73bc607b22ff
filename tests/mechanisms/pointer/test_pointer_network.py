"""Pointer networks: logits by hand, their bounds, and the stop state."""

import jax
import numpy as np
import pytest

from jattn.mechanisms import zoo

M, D, T, S = 6, 5, 3, 4
POINTER = zoo.make("pointer_network", dim=M, hidden=D)
RNG = np.random.default_rng(0)
draw = lambda *shape: RNG.standard_normal(shape).astype(np.float32)
PARAMS = {"query": draw(M, D), "key": draw(M, D), "score": draw(D)}
APPLY = jax.jit(POINTER.apply)
QUERY, TOKENS = draw(2, T, M), draw(2, S, M)


def test_by_hand():
    p = {name: array.astype(np.float64) for name, array in PARAMS.items()}
    logits = np.zeros((2, T, S))
    for b, t, j in np.ndindex(logits.shape):
        compared = np.tanh(TOKENS[b, j] @ p["key"] + QUERY[b, t] @ p["query"])
        logits[b, t, j] = sum(p["score"] * compared)
    np.testing.assert_allclose(APPLY(PARAMS, QUERY, TOKENS), logits, atol=1e-5)


def test_starts_as_in_the_paper():
    params = zoo.make("pointer_network", dim=64, stop=True).init(jax.random.key(0))
    for leaf in jax.tree.leaves(params):
        assert (np.abs(leaf) <= 0.08).all()
        assert np.abs(leaf).max() > 0.06


def test_scale_bounds_and_no_score():
    """Logits are linear in v, at most sum |v|, and with v = 0 all tokens are as likely."""
    logits = np.asarray(APPLY(PARAMS, QUERY, TOKENS))
    scaled = APPLY(PARAMS | {"score": 3 * PARAMS["score"]}, QUERY, TOKENS)
    np.testing.assert_allclose(scaled, 3 * logits, rtol=1e-5, atol=1e-5)
    far = APPLY(PARAMS, 1e3 * QUERY, 1e3 * TOKENS)
    assert (np.abs(far) <= np.abs(PARAMS["score"]).sum() + 1e-5).all()
    level = jax.nn.softmax(APPLY(PARAMS | {"score": 0 * PARAMS["score"]}, QUERY, TOKENS))
    np.testing.assert_allclose(level, 1 / S, rtol=1e-6)


def test_without_the_query_every_step_is_alike():
    logits = np.asarray(APPLY(PARAMS | {"query": 0 * PARAMS["query"]}, QUERY, TOKENS))
    np.testing.assert_allclose(logits, np.repeat(logits[:, :1], T, axis=1), atol=1e-6)
    assert logits.std(axis=2).min() > 1e-3


def test_masked_tokens_have_no_probability():
    mask = np.array([[True, False, True, True], [False, False, True, False]])
    chance = np.asarray(jax.nn.softmax(jax.jit(POINTER.apply)(PARAMS, QUERY, TOKENS, mask=mask)))
    assert (np.swapaxes(chance, 1, 2)[~mask] == 0).all()
    np.testing.assert_allclose(chance.sum(-1), 1, rtol=1e-6)
    assert (chance[1, :, 2] == 1).all()


def test_the_stop_state_is_a_token_before_the_others():
    """Which a mask of the tokens does not hide."""
    pointer = zoo.make("pointer_network", dim=M, hidden=D, stop=True)
    params = PARAMS | {"stop": draw(M)}
    mask = np.array([[True] * S, [False] * S])
    logits = np.asarray(jax.jit(pointer.apply)(params, QUERY, TOKENS, mask=mask))
    assert logits.shape == (2, T, 1 + S)
    before = np.concatenate([np.tile(params["stop"], (2, 1, 1)), TOKENS], axis=1)
    expected = APPLY(PARAMS, QUERY, before)
    np.testing.assert_allclose(logits[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(logits[1, :, 0], expected[1, :, 0], atol=1e-5)
    assert (jax.nn.softmax(logits[1])[:, 0] == 1).all()


def test_wrong_arguments_are_named(plain_checks):
    with pytest.raises(ValueError, match="hidden: expected at least 1, got 0"):
        zoo.make("pointer_network", dim=M, hidden=0)
    with pytest.raises(ValueError, match="stop: expected True or False, got 1"):
        zoo.make("pointer_network", dim=M, stop=1)
    with pytest.raises(ValueError, match="heads: pointer_network has none"):
        zoo.make("pointer_network", dim=M, heads=2)
