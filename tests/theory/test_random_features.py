"""Random-feature layers, their kernels, their targets and ridge fits, against their oracles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import jattn
from jattn.attention.normalizers import Normalizer
from jattn.tasks.random_feature_targets import (
    directions,
    harmonic,
    harmonic_share,
    quadratic_variance,
    sphere_tokens,
    target,
)
from jattn.theory import random_feature_kernels as kernels
from jattn.theory import random_features as layers
from jattn.theory.kernel_ridge import blocked_gram, kernel_ridge, validated_kernel_ridge

DIM, KEYS = 6, 5


@pytest.fixture(scope="module")
def tokens() -> Any:
    return sphere_tokens(jax.random.key(0), 20, KEYS, DIM)


def matrices(heads, bias_scale=0.0, seed=1):
    keys = jax.random.split(jax.random.key(seed), heads)
    return jax.vmap(lambda key: layers.interaction_matrix(key, DIM, bias_scale))(keys)


def test_attention_reads_a_set_and_the_network_does_not(tokens):
    order = jnp.array([3, 0, 4, 1, 2])
    weights = matrices(30)
    features = layers.attention_features(tokens.query, tokens.keys, weights)
    permuted = layers.attention_features(tokens.query, tokens.keys[:, order], weights)
    np.testing.assert_allclose(permuted, features, atol=1e-6)
    doubled = layers.attention_features(
        tokens.query, jnp.concatenate([tokens.keys] * 2, axis=1), weights
    )
    np.testing.assert_allclose(doubled, features, atol=1e-6)

    units = jax.random.normal(jax.random.key(2), (30, (KEYS + 1) * DIM + 1))
    first = layers.network_features(tokens.query, tokens.keys, units)
    second = layers.network_features(tokens.query, tokens.keys[:, order], units)
    assert float(jnp.abs(first - second).max()) > 0.1


def test_relu_homogeneity_bias_zero_and_zero_values(tokens):
    weights = matrices(30)
    features = layers.attention_features(tokens.query, tokens.keys, weights)
    np.testing.assert_allclose(
        layers.attention_features(tokens.query, tokens.keys, 3 * weights),
        3 * features,
        rtol=1e-5,
        atol=1e-6,
    )
    assert bool(jnp.all(matrices(30, bias_scale=0.0) == weights))
    assert not bool(jnp.all(matrices(30, bias_scale=1.0) == weights))
    # The bias adds <x_0, x_i> to the scores, and nothing for the constant.
    mean = matrices(4_000, bias_scale=2.0).mean(0)
    np.testing.assert_allclose(mean, 2 * np.diag([1.0] * DIM + [0.0]), atol=0.05)
    assert not jnp.any(
        layers.random_feature_attention(
            tokens.query, tokens.keys, weights, jnp.zeros((30, DIM + 1))
        )
    )


@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_layer_is_one_attention_layer(tokens, activation):
    """Queries x~_0^T W_m, keys and values x~_i, through the engine."""
    weights = matrices(8)
    values = jax.random.normal(jax.random.key(3), (8, DIM + 1))
    query = jnp.einsum("bd,hde->bhe", layers.with_constant(tokens.query), weights)[:, None]
    key = layers.with_constant(tokens.keys)[:, :, None]
    normalizer = activation
    if activation == "relu":
        normalizer = Normalizer("mean_relu", lambda score: jax.nn.relu(score) / KEYS, divide=False)
    out = jattn.attend(query, key, key, normalizer=normalizer, scale=1.0)
    expected = jnp.einsum("bthe,he->b", out, values)
    got = layers.random_feature_attention(
        tokens.query, tokens.keys, weights, values, activation=activation
    )
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_masked_keys_do_not_count(tokens):
    mask = jnp.broadcast_to(jnp.arange(KEYS) < 3, (20, KEYS))
    query, short = tokens.query, tokens.keys[:, :3]
    spoiled = tokens.keys.at[:, 3:].set(9.0)
    weights = matrices(10)
    for activation in layers.ACTIVATIONS:
        np.testing.assert_allclose(
            layers.attention_features(query, spoiled, weights, mask=mask, activation=activation),
            layers.attention_features(query, short, weights, activation=activation),
            atol=1e-6,
        )
    units = jax.random.normal(jax.random.key(2), (10, (KEYS + 1) * DIM + 1))
    kept = jnp.concatenate([units[:, : 4 * DIM], units[:, -1:]], axis=1)
    np.testing.assert_allclose(
        layers.network_features(query, spoiled, units, mask=mask),
        layers.network_features(query, short, kept),
        atol=1e-6,
    )


def test_one_key_and_a_fixed_query_is_a_random_feature_network():
    x = sphere_tokens(jax.random.key(4), 10, 1, DIM)
    query = jnp.broadcast_to(x.query[0], x.query.shape)
    weights = matrices(12)
    inner = layers.with_constant(x.query[0]) @ weights  # [h, D]: first-layer weights
    inputs = layers.with_constant(x.keys[:, 0])
    expected = jax.nn.relu(inputs @ inner.T)[..., None] * inputs[:, None]
    got = layers.attention_features(query, x.keys, weights)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_arc_cosine_values():
    got = kernels.arc_cosine_kernel(jnp.array([1.0, 0.0, -1.0]))
    np.testing.assert_allclose(got, [0.5, 1 / (2 * np.pi), 0.0], atol=1e-6)


def test_bivariate_normal_cdf_matches_scipy(x64):
    rng = np.random.default_rng(0)
    for r in (-1.0, -0.9995, -0.6, 0.0, 0.3, 0.99, 0.9995, 1.0):
        a = rng.uniform(-1.5, 1.5, 20)
        b = np.where(rng.random(20) < 0.5, np.sign(r) * a + 0.05 * rng.normal(size=20), -a / 2)
        near = float(np.clip(r, -1 + 1e-12, 1 - 1e-12))
        covariance = np.array([[1.0, near], [near, 1.0]])
        law = multivariate_normal(cov=covariance, allow_singular=True)  # type: ignore
        got = kernels.bivariate_normal_cdf(jnp.array(a), jnp.array(b), jnp.full(20, r))
        np.testing.assert_allclose(got, law.cdf(np.stack([a, b], 1)), atol=2e-6)


def test_biased_arc_cosine_kernel_matches_quadrature(x64):
    nodes, gains = np.polynomial.hermite_e.hermegauss(200)
    g, h = np.meshgrid(nodes, nodes)
    gain = np.outer(gains, gains) / (2 * np.pi)
    for a, b, r in ((0.3, -0.7, 0.4), (1.0, 0.9, 0.95), (-0.5, 0.5, -0.8), (0.2, 0.2, 1.0)):
        first = np.maximum(a + g, 0)
        second = np.maximum(b + r * g + np.sqrt(1 - r * r) * h, 0)
        expected = float((gain * first * second).sum())
        got = kernels.biased_arc_cosine_kernel(*map(jnp.array, (a, b, r)))
        assert abs(float(got) - expected) < 2e-3
    r = jnp.linspace(-1, 1, 21)
    np.testing.assert_allclose(
        kernels.biased_arc_cosine_kernel(0 * r, 0 * r, r), kernels.arc_cosine_kernel(r), atol=1e-5
    )


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_attention_gram_approaches_its_kernel(tokens, scale):
    kernel = kernels.attention_kernel(
        tokens.query, tokens.keys, tokens.query, tokens.keys, bias_scale=scale
    )
    assert float(jnp.linalg.eigvalsh(kernel).min()) > -1e-5
    features = layers.attention_features(tokens.query, tokens.keys, matrices(20_000, scale))
    gram = jnp.einsum("bhe,che->bc", features, features) / 20_000
    assert float(kernels.relative_gram_error(gram, kernel)) < 0.03


def test_network_gram_approaches_its_kernel(tokens):
    kernel = kernels.network_kernel(tokens.query, tokens.keys, tokens.query, tokens.keys)
    assert float(jnp.linalg.eigvalsh(kernel).min()) > -1e-5
    units = jax.random.normal(jax.random.key(5), (50_000, (KEYS + 1) * DIM + 1))
    features = layers.network_features(tokens.query, tokens.keys, units)
    assert float(kernels.relative_gram_error(features @ features.T / 50_000, kernel)) < 0.03


def test_targets_are_what_their_names_say(tokens):
    drawn = directions(jax.random.key(6), DIM)
    mask = jnp.broadcast_to(jnp.arange(KEYS) < 4, (20, KEYS))
    query, keys = np.asarray(tokens.query), np.asarray(tokens.keys[:, :4])
    beta, rotation = np.asarray(drawn.beta), np.asarray(drawn.rotation)
    along, score = keys @ beta, np.einsum("bd,bsd->bs", query, keys)
    turned = np.einsum("bd,de,bse->bs", query, 0.7 * np.eye(DIM) + 0.3 * rotation, keys)
    mixed = (0.7 * along**2 + 0.3 * score**2) / quadratic_variance(DIM) ** 0.5
    expected = {
        "keys_3": along**3,
        "harm_3": along**3 - 3 * along / (DIM + 2),
        "harm_4": along**4 - 6 * along**2 / (DIM + 4) + 3 / ((DIM + 2) * (DIM + 4)),
        "corr_2": score**2 * along,
        "corr_only_4": score**4,
        "mix_0.3": mixed,
        "turned_2_0.3": turned**2 * along,
    }
    for name, each in expected.items():
        got = target(name)(tokens, drawn, mask)
        np.testing.assert_allclose(got, each.mean(1), atol=1e-5, err_msg=name)
    same = target("turned_2_0")(tokens, drawn, mask)
    np.testing.assert_allclose(same, target("corr_2")(tokens, drawn, mask), atol=1e-6)


def test_harmonics_are_what_lower_degrees_do_not_explain():
    t = sphere_tokens(jax.random.key(9), 200_000, 1, 8).keys[:, 0, 0]
    lower = np.stack([np.ones_like(t), t, t**2, t**3], -1)
    for degree, basis in ((3, lower[:, :3]), (4, lower)):
        own = np.asarray(harmonic(t, degree, 8))
        overlap = np.corrcoef(np.column_stack([own, basis[:, 1:]]).T)[0, 1:]
        assert np.abs(overlap).max() < 0.02
        assert abs(own.mean()) < 3 * own.std() / len(own) ** 0.5
    share = float(jnp.var(harmonic(t, 4, 8)) / jnp.var(t**4))
    assert share == pytest.approx(harmonic_share(8), abs=0.01)


def test_sampler_moments():
    many = sphere_tokens(jax.random.key(7), 40_000, 2, DIM)
    np.testing.assert_allclose(jnp.linalg.norm(many.keys, axis=-1), 1.0, atol=1e-5)
    beta = directions(jax.random.key(8), DIM).beta
    values = (many.keys[:, 0] @ beta) ** 2
    assert abs(float(jnp.var(values)) / quadratic_variance(DIM) - 1) < 0.05
    assert abs(float(jnp.mean(values)) * DIM - 1) < 0.03


@pytest.mark.parametrize("machine", ["cpu", "tpu"])
def test_dual_ridge_is_primal_ridge(x64, monkeypatch, machine):
    monkeypatch.setattr("jattn.theory.kernel_ridge.platform", lambda: machine)
    rng = np.random.default_rng(0)
    features, y = rng.normal(size=(40, 7)), rng.normal(size=(40, 2))
    alpha = kernel_ridge(jnp.array(features @ features.T), jnp.array(y), jnp.array([0.3, 5.0]))
    for dual, penalty in zip(alpha, (0.3, 5.0), strict=True):
        primal = np.linalg.solve(features.T @ features + penalty * np.eye(7), features.T @ y)
        np.testing.assert_allclose(features.T @ np.asarray(dual), primal, atol=1e-9)


def test_validation_chooses_the_penalty_that_noise_needs(x64):
    rng = np.random.default_rng(0)
    x, fresh = rng.normal(size=(200, 100)), rng.normal(size=(300, 100))
    x[:, 0] = fresh[:, 0] = 1.0  # centred targets need an intercept
    beta = rng.normal(size=(100, 1)) / 10
    clean, noisy = x @ beta, x @ beta + 3 * rng.normal(size=(200, 1))
    fit = validated_kernel_ridge(
        jnp.array(x @ x.T),
        jnp.array(fresh @ x.T),
        jnp.array(np.concatenate([clean, noisy], 1)),
        (1e-6, 1e-3, 1.0, 10.0),
    )
    assert float(fit.penalty[0, 0]) < 1e-2 < float(fit.penalty[0, 1])
    np.testing.assert_allclose(fit.predictions[0, :, :1], fresh @ beta, atol=1e-3)


@pytest.mark.parametrize("machine", ["cpu", "tpu"])
def test_several_sizes_at_once_are_each_alone(x64, monkeypatch, machine):
    monkeypatch.setattr("jattn.theory.kernel_ridge.platform", lambda: machine)
    monkeypatch.setattr("jattn.theory.kernel_ridge.SMALLEST", 8)
    rng = np.random.default_rng(2)
    x, fresh = rng.normal(size=(40, 6)), rng.normal(size=(9, 6))
    y = x @ rng.normal(size=(6, 2)) + rng.normal(size=(40, 2))
    gram, cross, grid, sizes = x @ x.T, fresh @ x.T, (1e-3, 1e-1, 10.0), (10, 15, 40)
    found = validated_kernel_ridge(
        jnp.array(gram), jnp.array(cross), jnp.array(y), grid, sizes=sizes
    )
    for index, size in enumerate(sizes):
        alone = validated_kernel_ridge(
            jnp.array(gram[:size, :size]), jnp.array(cross[:, :size]), jnp.array(y[:size]), grid
        )
        np.testing.assert_allclose(found.predictions[index], alone.predictions[0], atol=1e-9)
        np.testing.assert_allclose(found.fitted[index, :size], alone.fitted[0], atol=1e-9)
        np.testing.assert_array_equal(found.penalty[index], alone.penalty[0])


def test_a_penalty_below_rounding_errors_is_not_chosen(monkeypatch):
    monkeypatch.setattr("jattn.theory.kernel_ridge.platform", lambda: "tpu")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    x[:, 0] = 1.0  # centred targets need an intercept
    gram, y = jnp.array(x @ x.T), jnp.array(x @ rng.normal(size=(3, 1)).astype(np.float32))
    alpha = kernel_ridge(gram, y, jnp.array([1e-9, 1e-2]))
    assert not np.isfinite(alpha[0]).all()
    assert np.isfinite(alpha[1]).all()
    fit = validated_kernel_ridge(gram, gram, y, (1e-9, 1e-4))
    assert float(fit.penalty[0, 0]) == pytest.approx(1e-4)
    np.testing.assert_allclose(fit.predictions[0], y, atol=1e-2)


def test_blocks_do_not_change_the_gram():
    weights = matrices(23)
    data = sphere_tokens(jax.random.key(9), 12, KEYS, DIM)
    every = layers.attention_features(data.query, data.keys, weights).reshape(12, -1)
    features = lambda index: layers.attention_features(
        data.query, data.keys, weights[index]
    ).reshape(12, -1)
    for block in (4, 23, 100):
        got = blocked_gram(features, 3, 23, block=block, columns=8)
        part = every.reshape(12, 23, -1)[:, 3:].reshape(12, -1)
        np.testing.assert_allclose(got, part @ part[:8].T, rtol=1e-5, atol=1e-5)


def test_bad_input_is_one_clear_line(plain_checks, tokens):
    with pytest.raises(ValueError, match=r"weights: expected shape \[h=3, d\+1=7, d\+1=7\]"):
        layers.attention_features(tokens.query, tokens.keys, jnp.ones((3, 6, 6)))
    with pytest.raises(ValueError, match="activation: expected one of 'relu', 'softmax'"):
        layers.attention_features(tokens.query, tokens.keys, matrices(2), activation="tanh")
    with pytest.raises(ValueError, match="target: expected keys_P"):
        target("keys_two")
    with pytest.raises(ValueError, match="count, keys, dim: expected at least 1"):
        sphere_tokens(jax.random.key(0), 3, 0, 4)
    with pytest.raises(ValueError, match="held_out: expected points on both sides"):
        validated_kernel_ridge(jnp.eye(3), jnp.eye(3), jnp.ones((3, 1)), (1.0,), held_out=0.0)
    with pytest.raises(ValueError, match="sizes: expected at most 3 points, got 4"):
        validated_kernel_ridge(jnp.eye(3), jnp.eye(3), jnp.ones((3, 1)), (1.0,), sizes=(4,))
    with pytest.raises(ValueError, match="targets: expected shape"):
        kernel_ridge(jnp.eye(3), jnp.ones((4, 1)), jnp.ones(1))
