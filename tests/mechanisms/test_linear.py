"""Oracles of the linear family: closed forms, limits, and what each mechanism is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.linear.delta_rule import delta_rule
from jattn.mechanisms.linear.gated_delta_rule import gated_delta_rule
from jattn.mechanisms.linear.gated_linear_attention import gated_linear_attention
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.mechanisms.linear.retention import log_gamma, retention
from jattn.recurrence.feature_maps import FEATURE_MAPS

B, T, H, D, E = 2, 7, 2, 4, 3


@pytest.fixture
def qkv():
    rng = np.random.default_rng(0)
    shapes = (D, D, E)
    return tuple(jnp.asarray(rng.standard_normal((B, T, H, d)), jnp.float32) for d in shapes)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", sorted(FEATURE_MAPS))
def test_linear_attention_is_an_average_by_features(qkv, name, causal):
    """The order of multiplication is all that differs from attention with weights phi(q).phi(k)."""
    query, key, value = qkv
    normalize = name != "identity"
    out = linear_attention(query, key, value, feature_map=name, normalize=normalize, causal=causal)
    weights = jnp.einsum("bthd,bshd->bhts", *map(FEATURE_MAPS[name], (query, key)))
    weights = jnp.tril(weights) if causal else weights
    if normalize:
        weights = weights / (weights.sum(-1, keepdims=True) + 1e-10)
    close(out, jnp.einsum("bhts,bshe->bthe", weights, value), 2e-5)


def test_normalised_weights_keep_a_constant(qkv):
    query, key, _ = qkv
    close(linear_attention(query, key, jnp.full((B, T, H, E), 3.0), causal=True), 3.0)


def test_grouped_keys_serve_neighbouring_heads(qkv):
    query, key, value = qkv
    one = linear_attention(query, key[:, :, :1], value[:, :, :1])
    two = linear_attention(query, *(jnp.repeat(x[:, :, :1], H, 2) for x in (key, value)))
    close(one, two)


def test_retention_is_a_decayed_product_and_without_decay_linear_attention(qkv):
    query, key, value = qkv
    distance = np.arange(T)[:, None] - np.arange(T)
    gamma = 1 - 2.0 ** -np.array([5.0, 9.0])  # two heads: the ends of the range
    decay = np.where(distance >= 0, gamma[:, None, None] ** np.maximum(distance, 0), 0)
    weights = jnp.einsum("bthd,bshd->bhts", query, key) * D**-0.5 * decay
    close(retention(query, key, value), jnp.einsum("bhts,bshe->bthe", weights, value))
    plain = linear_attention(
        query * D**-0.5, key, value, feature_map="identity", normalize=False, causal=True
    )
    close(retention(query, key, value, decay=jnp.zeros(H)), plain)


def test_retention_depends_on_distances_only():
    mixer = zoo.make("retention", dim=8, heads=2, causal=True)
    params = mixer.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (B, T, 8))
    here = jnp.broadcast_to(jnp.arange(T), (B, T))
    y = mixer.apply(params, x, positions=here)
    close(mixer.apply(params, x), y)
    close(mixer.apply(params, x, positions=here + 11), y, 1e-4)
    assert np.abs(mixer.apply(params, x, positions=here * 5) - y).max() > 1e-2


def test_gates_equal_in_all_channels_are_retention(qkv):
    query, key, value = qkv
    decay = jnp.broadcast_to(log_gamma(H)[:, None], (B, T, H, D))
    close(gated_linear_attention(query, key, value, decay), retention(query, key, value))


def test_delta_rule_recalls_what_it_stored(qkv):
    """A second value for a key replaces the first, where a Hebbian write adds to it."""
    _, _, value = qkv
    eye = jnp.eye(D)[None, :, None]
    keys = jnp.concatenate([eye, eye, eye], 1)  # written, written again, asked for
    values = jnp.concatenate([value[:1, :D, :1], value[1:, :D, :1], jnp.zeros((1, D, 1, E))], 1)
    write = jnp.where(jnp.arange(3 * D) < 2 * D, 1.0, 0.0)[None, :, None]
    close(delta_rule(keys, keys, values, write)[:, 2 * D :], values[:, D : 2 * D], 1e-4)
    added = linear_attention(
        keys, keys, values, feature_map="identity", normalize=False, causal=True
    )
    close(added[:, 2 * D :], values[:, :D] + values[:, D : 2 * D], 1e-4)


def test_gated_delta_rule_limits(qkv):
    query, key, value = qkv
    beta = jax.nn.sigmoid(value[..., 0])
    still = jnp.zeros((B, T, H))
    plain = delta_rule(query, key, value, beta)
    close(gated_delta_rule(query, key, value, beta, still), plain)
    reset = still.at[:, 3].set(-jnp.inf)  # everything before token 3 is forgotten
    out = gated_delta_rule(query, key, value, beta, reset)
    close(out[:, :3], plain[:, :3])
    close(out[:, 3:], delta_rule(query[:, 3:], key[:, 3:], value[:, 3:], beta[:, 3:]))


def test_bad_options_are_named(plain_checks, qkv):
    with pytest.raises(ValueError, match="normalize: expected False with feature_map='identity'"):
        linear_attention(*qkv, feature_map="identity")
    with pytest.raises(ValueError, match=r"feature_map: expected one of 'elu1', .* got 'cube'"):
        zoo.make("linear_attention", dim=8, heads=2, feature_map="cube")
    with pytest.raises(ValueError, match="heads: expected an even dim / heads"):
        zoo.make("retention", dim=6, heads=2, causal=True)
    mixer = zoo.make("linear_attention", dim=8, heads=2, causal=True)
    x = jnp.ones((1, 3, 8))
    with pytest.raises(ValueError, match="context: causal linear_attention"):
        mixer.apply(mixer.init(jax.random.key(0)), x, context=x)
