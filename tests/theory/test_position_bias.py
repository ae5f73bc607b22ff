"""Rollouts of masked layers against closed forms, and the operations studied for sinks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import masks
from jattn.theory import position_bias as bias
from jattn.theory import sink_operations

DIM = 4


def network(length, layers, scale=0.0, **options):
    keys = jax.random.split(jax.random.key(0), 3 * layers + 1)
    weights = [
        bias.Layer(*(scale * jax.random.normal(k, (DIM, DIM)) for k in keys[3 * i : 3 * i + 3]))
        for i in range(layers)
    ]
    x = jax.random.normal(keys[-1], (1, length, DIM))
    _, maps = bias.self_attention_network(weights, x, **options)
    return np.asarray(maps), np.asarray(bias.rollout(maps[:, :, None]))[0]


@pytest.mark.parametrize("share", [0.3, [0.1, 0.5, 0.7]])
def test_what_is_kept_of_the_input_is_part_of_the_rollout(share, plain_checks):
    maps, _ = network(6, 3, scale=0.5, mask=masks.causal())
    product = np.eye(6)
    for layer, kept in zip(maps[:, 0], np.broadcast_to(share, 3), strict=True):
        product = ((1 - kept) * layer + kept * np.eye(6)) @ product
    found = bias.rollout(jnp.asarray(maps)[:, :, None], share)[0]
    np.testing.assert_allclose(found, product, atol=1e-6)
    with pytest.raises(ValueError, match="residual: expected"):
        bias.rollout(jnp.asarray(maps)[:, :, None], [0.1, 0.2])


def test_even_layers_that_keep_a_share_are_powers_too():
    even = np.tril(np.ones((12, 12))) / np.arange(1, 13)[:, None]
    kept = np.linalg.matrix_power(0.4 * even + 0.6 * np.eye(12), 7)
    np.testing.assert_allclose(bias.cesaro_power(12, 7, 0.6), kept, atol=1e-12)
    deep = bias.cesaro_power(12, 4_000, 1 - 1 / 4_000)
    np.testing.assert_allclose(bias.cesaro_flow(12), deep, atol=1e-3)
    assert bias.cesaro_flow(12)[-1, -1] == pytest.approx(np.exp(1 / 12 - 1))


@pytest.mark.parametrize(
    ("mask", "options", "first"),
    [
        (masks.causal(), {}, 2),
        (masks.causal() | masks.prefix(3), {"prefix": 3}, 4),
        (masks.sliding_window(4), {"reach": bias.layers_to_reach(8, 4)}, 2),
    ],
)
def test_no_later_position_keeps_more_than_its_bound(mask, options, first):
    layers = 6
    maps, product = network(8, layers, scale=0.3, mask=mask)
    smallest = float(maps[maps > 0].min())
    for position in range(first, 9):
        bound = bias.influence_bound(position, smallest, layers, **options)
        assert product[:, position - 1].max() <= bound + 1e-6


@pytest.mark.parametrize("layers", [1, 5])
def test_even_causal_layers_are_powers_of_cesaro(layers):
    _, product = network(12, layers, mask=masks.causal())
    np.testing.assert_allclose(product, bias.cesaro_power(12, layers), atol=1e-6)
    np.testing.assert_allclose(product.sum(-1), 1, atol=1e-6)
    expected = {1: 0.083, 5: 0.787}
    assert product[-1, 0] == pytest.approx(expected[layers], abs=1e-3)


def test_decay_is_a_negative_binomial_far_from_the_edge():
    decay, layers, length = 0.7, 3, 40
    _, product = network(length, layers, mask=masks.causal(), decay=decay)
    expected = [bias.decay_rollout(d, decay, layers) for d in range(12)]
    np.testing.assert_allclose(product[-1, ::-1][:12], expected, atol=1e-5)
    assert int(np.argmax(expected)) == int((layers - 1) / (np.exp(decay) - 1))


def test_windows_reach_back_layer_by_layer():
    # (16 - 1) / (4 - 1) = 5 layers reach everything before, 4 do not.
    for layers, reached in ((4, False), (5, True)):
        _, product = network(16, layers, mask=masks.sliding_window(4))
        assert bool((product[np.tril_indices(16)] > 0).all()) == reached


def test_bound_and_special_masks():
    maps, product = network(6, 3, scale=0.5, mask=masks.causal())
    allowed = maps[..., np.tri(6, dtype=bool)]
    bound = (1 - np.arange(1, 6) * allowed.min()) ** 3
    assert (product[-1, 1:] <= bound + 1e-6).all()
    assert not np.triu(product, 1).any()
    for mask in (masks.sliding_window(6), masks.causal() | masks.prefix(1)):
        np.testing.assert_allclose(network(6, 3, scale=0.5, mask=mask)[1], product, atol=1e-6)
    np.testing.assert_allclose(bias.rollout(jnp.asarray(maps)[:, :, None], 1.0)[0], np.eye(6))
    # Rotations matter to scores, but not to a token's own.
    turned, _ = network(6, 1, scale=0.5, mask=masks.causal(), rotary=True)
    assert np.abs(turned[0] - maps[0]).max() > 1e-3


def test_weights_without_a_normaliser_do_not_see_other_keys(plain_checks):
    query, key = jax.random.normal(jax.random.key(1), (2, 1, 6, 2, 4))
    value = jnp.eye(6)[None, :, None] * jnp.ones((1, 1, 2, 1))  # outputs are the weights
    other = key.at[:, 2].add(1.0)
    apply = sink_operations.similarity_attention
    for similarity in ("sigmoid", "elu"):
        free, moved = (apply(query, k, value, similarity=similarity) for k in (key, other))
        unmoved = np.arange(6) != 2
        np.testing.assert_allclose(free[..., unmoved], moved[..., unmoved], atol=1e-6)
        divided = apply(query, key, value, similarity=similarity, normalize=True)
        np.testing.assert_allclose(divided.sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(divided, free / free.sum(-1, keepdims=True), atol=1e-6)
    weights = jnp.einsum("bihd,bjhd->bihj", query, key) / 2 * jnp.tri(6)[:, None]
    linear = sink_operations.kernel_attention(query, key, value)
    np.testing.assert_allclose(linear, weights, atol=1e-5)
    scaled = sink_operations.kernel_attention(query, key, value, normalize=True)
    total = np.maximum(np.abs(weights.sum(-1, keepdims=True)), 1)
    np.testing.assert_allclose(scaled, weights / total, atol=1e-5)
    with pytest.raises(ValueError, match="similarity: expected one of 'elu', 'sigmoid'"):
        apply(query, key, value, similarity="tanh")  # type: ignore
