"""Bags of instances: branches, what training hides of them, and their limits."""

import jax
import jax.numpy as jnp
import numpy as np

from jattn.losses.attention_maps import diversity
from jattn.mechanisms import zoo
from jattn.mechanisms.layers.weighted_sums import softmax_sum
from jattn.mechanisms.pooling.acmil import (
    acmil,
    gated_attention_scores,
    stochastic_top_k_mask,
    top_k_mask,
)

N, M, K = 12, 8, 4
POOL = zoo.make("acmil", dim=M, branches=K, hidden=6)
PARAMS = jax.jit(POOL.init)(jax.random.key(0))
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, N, M)), jnp.float32)
Z = jax.nn.relu(X @ PARAMS["project"])
SCORES = 20 * gated_attention_scores(PARAMS, Z)


def close(got, expected):
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_mean_of_branches_is_the_bag():
    """The mean of their maps gives the mean of what they read."""
    maps = jax.nn.softmax(gated_attention_scores(PARAMS, Z), axis=1)
    close(maps.sum(1), 1)
    close(acmil(PARAMS, X).mean(1), jnp.einsum("bn,bnm->bm", maps.mean(2), Z))


def test_so_many_are_hidden_all_of_the_largest():
    hidden = stochastic_top_k_mask(SCORES, jax.random.key(1), top=5, share=0.6)
    assert (hidden.sum(1) == 3).all()
    largest = jnp.argsort(jnp.argsort(-SCORES, axis=1), axis=1) < 5
    assert (hidden & ~largest).sum() == 0
    assert not stochastic_top_k_mask(SCORES, jax.random.key(1), share=0.0).any()
    real = jnp.arange(N) < jnp.array([[N], [4]])
    few = stochastic_top_k_mask(SCORES, jax.random.key(1), top=5, share=0.6, real=real)
    assert (few.sum(1) == jnp.array([[3], [2]])).all()  # 60 % of 5, and of 4
    assert not (few & ~real[..., None]).any()


def test_hidden_weight_goes_to_the_others():
    """Before the softmax, or behind it and renormalised; and no gradient through what is hidden."""
    uniforms = jax.random.uniform(jax.random.key(2), (2, K, 5))
    hidden = top_k_mask(SCORES, uniforms, 0.6)
    kept = jnp.where(hidden, 0, jax.nn.softmax(SCORES, axis=1))
    expected = kept / kept.sum(1, keepdims=True)
    close(softmax_sum(SCORES, Z, hidden=hidden), jnp.einsum("bnk,bnm->bkm", expected, Z))
    of_scores = jax.grad(lambda s: (softmax_sum(s, Z, hidden=hidden) ** 2).sum())(SCORES)
    assert not of_scores[hidden].any()
    assert of_scores[~hidden].any()


def test_permuted_instances_with_their_ranks():
    """The ranks, not the places, decide what is hidden."""
    order = np.random.default_rng(3).permutation(N)
    uniforms = jax.random.uniform(jax.random.key(2), (2, K, 5))
    hidden = top_k_mask(SCORES, uniforms, 0.6)
    assert (top_k_mask(SCORES[:, order], uniforms, 0.6) == hidden[:, order]).all()


def test_without_the_gate_it_is_additive_attention():
    params = {"value": PARAMS["value"], "score": PARAMS["score"]}
    hidden = jnp.tanh(Z @ params["value"]["weight"] + params["value"]["bias"])
    close(gated_attention_scores(params, Z), hidden @ params["score"]["weight"])


def test_branches_that_are_equal():
    one = jax.nn.softmax(SCORES[..., :1], axis=1)
    close(diversity(jnp.repeat(one, K, axis=2).swapaxes(1, 2)), 1)
    assert (diversity(one.swapaxes(1, 2)) == 0).all()
