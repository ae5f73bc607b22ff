"""Hedgehog: its features, its weights, and the loss that trains the maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.linear.hedgehog import (
    FEATURE_MAPS,
    distillation_loss,
)
from jattn.mechanisms.linear.hedgehog import hedgehog as core
from jattn.mechanisms.linear.hedgehog import hedgehog_features as features

B, T, H, D, E = 2, 7, 2, 4, 3
hedgehog = jax.jit(core, static_argnames=("feature_map", "causal", "return_state"))
hedgehog_features = jax.jit(features, static_argnames="feature_map")


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    maps = [{"weight": jnp.eye(D) + 0.3 * draw(H, D, D), "bias": draw(H, D)} for _ in range(2)]
    return draw(B, T, H, D), draw(B, T, H, D), draw(B, T, H, E), *maps


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def identity(size, factor=1.0, heads=H):
    return factor * jnp.tile(jnp.eye(size), (heads, 1, 1))


def test_sums_signs_and_shifts_of_features(case):
    x, eye = case[0], identity(D)
    maps = {name: hedgehog_features(x, eye, feature_map=name) for name in FEATURE_MAPS}
    assert all((phi > 0).all() for phi in maps.values())
    close(maps["softmax_dim"].sum(-1), 2.0)
    close(maps["joint_softmax"].sum(-1), 1.0)
    close(maps["exp"], jnp.concatenate([jnp.exp(x), jnp.exp(-x)], -1))
    for name in FEATURE_MAPS:  # the other sign exchanges the halves
        other = hedgehog_features(-x, eye, feature_map=name)
        close(other, jnp.roll(maps[name], D, axis=-1))
    for name in ("softmax_dim", "exp_dim"):  # a constant in y does not matter, in exp it does
        close(hedgehog_features(x + 1.5, eye, feature_map=name), maps[name])
    for name in ("exp", "joint_softmax"):
        assert np.abs(hedgehog_features(x + 1.5, eye, feature_map=name) - maps[name]).max() > 0.1


def test_joint_softmax_of_zero_is_uniform_and_large_maps_make_one_hot_pairs(case):
    x = case[0]
    zero = hedgehog_features(x, identity(D, 0.0), feature_map="joint_softmax")
    close(zero, 1 / (2 * D))
    spiky = hedgehog_features(x, identity(D, 1e4))
    pair = [jax.nn.one_hot(ends, D) for ends in (x.argmax(-1), x.argmin(-1))]
    close(spiky, jnp.concatenate(pair, -1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("feature_map", FEATURE_MAPS)
def test_it_is_the_average_by_features(case, feature_map, causal):
    query, key, value, query_map, key_map = case
    out = hedgehog(*case, feature_map=feature_map, causal=causal)
    phi_q = hedgehog_features(query, **query_map, feature_map=feature_map)
    phi_k = hedgehog_features(key, **key_map, feature_map=feature_map)
    weights = jnp.einsum("bthn,bshn->bhts", phi_q, phi_k)
    weights = jnp.tril(weights) if causal else weights
    weights = weights / weights.sum(-1, keepdims=True)
    close(out, jnp.einsum("bhts,bshe->bthe", weights, value))


def test_rows_sum_to_one_and_a_split_sequence_is_the_whole(case):
    query, key, value, *maps = case
    close(hedgehog(query, key, jnp.full_like(value, 3.0), *maps, causal=True), 3.0)
    whole, last = hedgehog(*case, causal=True, return_state=True)
    first, state = hedgehog(
        query[:, :3], key[:, :3], value[:, :3], *maps, causal=True, return_state=True
    )
    rest, end = hedgehog(
        query[:, 3:], key[:, 3:], value[:, 3:], *maps,
        causal=True, initial_state=state, return_state=True,
    )  # fmt: skip
    close(jnp.concatenate([first, rest], 1), whole)
    close(end, last)


def test_in_one_dimension_exp_weighs_by_the_hyperbolic_cosine(case):
    query, key, value = (x[..., :1] for x in case[:3])
    one = {"weight": identity(1)}
    weights = jnp.cosh(query[:, :, None, :, 0] + key[:, None, :, :, 0])
    expected = (weights[..., None] * value[:, None]).sum(2) / weights.sum(2)[..., None]
    close(hedgehog(query, key, value, one, one, feature_map="exp"), expected)


def test_the_stable_exp_is_exp_only_for_symmetric_vectors(case):
    query, key, value = case[:3]
    eye = {"weight": identity(D)}
    run = lambda q, k, kind: hedgehog(q, k, value, eye, eye, feature_map=kind)
    assert np.abs(run(query, key, "exp") - run(query, key, "exp_dim")).max() > 1e-3
    # Symmetric with one maximum for all keys: every token then has the same factor.
    even = jnp.concatenate([key[..., :1], jnp.ones_like(key[..., :1])], -1).clip(-1, 1)
    even = jnp.concatenate([even, -even], -1)
    close(run(even, even, "exp"), run(even, even, "exp_dim"))


@pytest.mark.parametrize("causal", [False, True])
def test_loss_is_at_least_the_entropy_of_the_teacher(case, causal):
    query, key, _, *maps = case
    scores = jnp.einsum("bthd,bshd->bhts", query, key) * D**-0.5
    scores = jnp.where(jnp.tril(jnp.ones((T, T), bool)) | (not causal), scores, -jnp.inf)
    teacher = jax.nn.softmax(scores)
    entropy = -jax.scipy.special.xlogy(teacher, teacher).sum(-1).mean()
    assert distillation_loss(query, key, *maps, causal=causal) > entropy + 1e-3
    # Equal where the weights are: queries of zero and maps of zero both give the mean.
    none = {"weight": identity(D, 0.0)}
    seen = np.arange(1, T + 1) if causal else np.full(T, T)
    least = distillation_loss(0 * query, key, none, none, causal=causal)
    close(least, np.log(seen).mean())


def test_training_the_maps_lowers_the_loss(case):
    query, key, _, *maps = case
    loss = lambda maps: distillation_loss(query, key, *maps, causal=True)
    step = jax.jit(lambda maps: jax.tree.map(lambda w, g: w - 0.5 * g, maps, jax.grad(loss)(maps)))
    start, trained = float(loss(maps)), maps
    for _ in range(20):
        trained = step(trained)
    assert float(loss(trained)) < start - 0.01


def test_weights_are_more_monotone_in_the_scores_than_those_of_elu():
    """Rank correlation of weights with q.k before any training: softmax's is 1."""
    rng = np.random.default_rng(0)
    query, key = 1.5 * rng.standard_normal((2, 1, 64, 1, 16)).astype(np.float32)
    ranks = lambda x: np.argsort(np.argsort(x, -1), -1) - 31.5

    def monotone(phi):
        a = ranks(np.asarray(phi(query))[0, :, 0] @ np.asarray(phi(key))[0, :, 0].T)
        b = ranks(query[0, :, 0] @ key[0, :, 0].T)
        return float((a * b).mean() / (a * a).mean())

    learned = monotone(lambda x: hedgehog_features(jnp.asarray(x), identity(16, heads=1)))
    assert learned >= monotone(lambda x: jax.nn.elu(x) + 1) + 0.2


def test_options_and_errors(plain_checks, case):
    mixer = zoo.make("hedgehog", dim=8, heads=2, causal=True, feature_map="exp_dim", bias=True)
    params = mixer.init(jax.random.key(0))
    assert params["key_map"]["bias"].shape == (2, 4)
    x = jnp.ones((1, 3, 8))
    assert mixer.apply(params, x).shape == x.shape
    with pytest.raises(ValueError, match=r"feature_map: expected one of 'softmax_dim'.* got 'elu'"):
        zoo.make("hedgehog", dim=8, heads=2, feature_map="elu")
    with pytest.raises(ValueError, match="weight: expected shape"):
        hedgehog_features(case[0], identity(D + 1))
    with pytest.raises(ValueError, match="context: causal hedgehog"):
        mixer.apply(params, x, context=x)
