"""Reversed attention: conservation, its dense form, and trees of parts that it learns."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jattn
from jattn.mechanisms.softmax import dependency_tree as tree
from jattn.mechanisms.softmax import reversed_attention as reverse

B, T, H, D, M = 2, 6, 2, 3, 8
Q, K, V = jax.random.normal(jax.random.key(0), (3, B, T, H, D))
WEIGHTS = jax.random.uniform(jax.random.key(1), (B, T, H))
X = jax.random.normal(jax.random.key(2), (B, T, M))


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("masked", [False, True])
def test_against_the_dense_form_with_gradients(masked):
    mask = jattn.masks.sliding_window(2, 1) if masked else None
    allowed = jnp.ones((T, T), bool) if mask is None else mask.dense(T, T)

    def dense(q, k, v, weights):
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / D**0.5
        sent = jax.nn.softmax(scores, axis=-1, where=allowed)
        return jnp.einsum("bhts,bth,bthe->bshe", sent, weights, v)

    ours = lambda *arrays: reverse.reversed_attention(*arrays, mask=mask)
    cotangent = jax.random.normal(jax.random.key(3), V.shape)
    found, expected = (
        jax.jit(lambda *a, f=f: (f(*a), jax.vjp(f, *a)[1](cotangent)))(Q, K, V, WEIGHTS)
        for f in (ours, dense)
    )
    jax.tree.map(lambda a, b: near(a, b, 1e-5), found, expected)
    # As attention is linear in its values, this is also how it takes a gradient to them.
    attention = lambda v: jattn.attend(Q, K, v, mask=mask)
    near(found[0], jax.vjp(attention, V)[1](WEIGHTS[..., None] * V)[0], 1e-5)


def test_nothing_is_lost_and_column_sums_are_free():
    near(reverse.reversed_attention(Q, K, V).sum(1), V.sum(1), 1e-5)
    weighted = reverse.reversed_attention(Q, K, V, WEIGHTS)
    near(weighted.sum(1), (WEIGHTS[..., None] * V).sum(1), 1e-5)
    found = tree.dependencies(Q, K, WEIGHTS)
    near(found.sum(1), WEIGHTS.sum(-1), 1e-5)
    assert found.sum(2).max() > 1.1 * WEIGHTS.sum(-1).mean()
    one = slice(0, 1)
    near(
        reverse.reversed_attention(Q[:, one], K[:, one], V[:, one], WEIGHTS[:, one]),
        WEIGHTS[:, one, :, None] * V[:, one],
    )


def test_symmetric_weights_are_softmax_attention():
    """On a circle every token has the same distances to the others."""
    angle = 2 * np.pi * jnp.arange(T) / T
    circle = jnp.stack([jnp.cos(angle), jnp.sin(angle), 0 * angle], -1)
    q = jnp.broadcast_to(circle[None, :, None], Q.shape)
    near(reverse.reversed_attention(q, q, V), jattn.attend(q, q, V))


def test_order_does_not_matter_and_silent_tokens_still_listen():
    order = jnp.array([3, 1, 5, 0, 4, 2])
    args = (Q, K, V, WEIGHTS)
    y = reverse.reversed_attention(*args)
    near(reverse.reversed_attention(*(a[:, order] for a in args)), y[:, order], 1e-5)
    silent = reverse.reversed_attention(Q, K, V, WEIGHTS.at[:, 2].set(0))
    other = reverse.reversed_attention(Q, K, V.at[:, 2].set(9.0), WEIGHTS.at[:, 2].set(0))
    near(silent, other)
    assert np.abs(silent[:, 2]).min() > 0
    shared = reverse.reversed_attention(Q, K[:, :, :1], V[:, :, :1], WEIGHTS)
    two = lambda a: jnp.repeat(a[:, :, :1], H, axis=2)
    near(shared, reverse.reversed_attention(Q, two(K), two(V), WEIGHTS))


def layer_by_hand(params, x, message):
    """What a layer gives, M and P: selector at temperature 0.1, gate by the exact gelu."""
    arrays = {name: np.asarray(p, np.float64) for name, p in params.items()}
    told = x @ arrays["message_up"]
    erf = np.vectorize(math.erf)
    told = (0.5 * told * (1 + erf(told / 2**0.5))) @ arrays["message_down"]
    gate = message / (1 + np.exp(-told[..., 0]))
    share = np.exp(x @ arrays["select"] / 0.1)
    share /= share.sum(-1, keepdims=True)
    heads = lambda name: (x @ arrays[name]).reshape(*x.shape[:2], H, M // H)
    weights = np.exp(np.einsum("bthd,bshd->bhts", heads("query"), heads("key")) / (M // H) ** 0.5)
    weights /= weights.sum(-1, keepdims=True)
    sent = (share * gate[..., None])[..., None] * heads("value")
    out = np.einsum("bhts,bthe->bshe", weights, sent).reshape(x.shape)
    return out @ arrays["output"], gate, share


def test_a_layer_by_hand():
    params = reverse.make(dim=M, heads=H).init(jax.random.key(0))
    x, message = np.asarray(X, np.float64), np.linspace(0.2, 1.0, B * T).reshape(B, T)
    expected, gate, _ = layer_by_hand(params, x, message)
    y, after = reverse.reversed_layer(params, X, jnp.asarray(message, jnp.float32), heads=H)
    near(y, expected, 1e-5)
    near(after, gate)


def test_layers_that_prune_and_pool_by_hand():
    """Six tokens, of which two layers drop a sixth each, and the last pools what is left."""
    keys = jax.random.split(jax.random.key(4), 3)
    layers = [reverse.make(dim=M, heads=H).init(key) for key in keys]
    x, message = np.asarray(X, np.float64), np.ones((B, T))
    ours, told = X, jnp.ones((B, T))
    for n, params in enumerate(layers, 1):
        y, message, share = layer_by_hand(params, x, message)
        out, after = reverse.reversed_layer(params, ours, told, heads=H)
        shares, _ = reverse.senders(params, ours, told)
        x, ours, told = x + y, ours + out, after
        if n < 3:
            count = round(ours.shape[1] * tree.keep_ratio(n, 1 / 6))
            assert count == T - n
            kept = np.sort(np.argsort(-message * share.max(-1), axis=1)[:, :count], axis=1)
            x = np.take_along_axis(x, kept[..., None], 1)
            message = np.take_along_axis(message, kept, 1)
            ours, told = tree.prune(tree.speaking(shares, told), count, ours, told)
    near(told, message, 1e-5)
    near(tree.pool(ours, told), (message[..., None] * x).mean(1), 1e-5)


def test_layers_carry_their_messages():
    mixer = reverse.make(dim=M, heads=H)
    params = mixer.init(jax.random.key(0))
    y, message = reverse.reversed_layer(params, X, heads=H)
    near(y, mixer.apply(params, X))
    share, gate = reverse.senders(params, X)
    near(message, gate)
    near(share.sum(-1), 1.0)
    _, again = reverse.reversed_layer(params, X, message, heads=H)
    near(again, gate**2)
    found = tree.layer_dependencies(params, X, message, heads=H)
    near(found.sum(1), gate**2, 1e-5)


def test_pruning_keeps_who_speaks():
    ratios = [tree.keep_ratio(n) for n in (1, 2, 3, 4)]
    near(np.prod(ratios), 1 - 4 * 0.16)
    # A token is heard through its loudest head: with shares 0.9, 0.1 better than with 0.5, 0.5.
    share = jnp.array([[[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]])
    near(tree.speaking(share, jnp.array([[1.0, 0.5, 1.0]])), np.array([[0.5, 0.45, 0.8]]))
    share, message = WEIGHTS / WEIGHTS.sum(-1, keepdims=True), WEIGHTS[..., 0]
    score = np.asarray(message) * np.asarray(share).max(-1)
    near(tree.speaking(share, message), score)
    score = jnp.asarray(score)
    kept, index = tree.prune(score, 4, X, jnp.broadcast_to(jnp.arange(T), (B, T)))
    for row in range(B):
        expected = np.sort(np.argsort(-score[row])[:4])
        np.testing.assert_array_equal(index[row], expected)
        np.testing.assert_array_equal(kept[row], X[row, expected])


def test_parents_of_patches_lie_in_their_part():
    """Masked patches are rebuilt from the others of their part, which must tell them."""
    parts, size, dim = 4, 4, 16
    part = jnp.repeat(jnp.arange(parts), size)
    looks = jax.random.normal(jax.random.key(5), (8, dim))
    places = jax.random.normal(jax.random.key(9), (parts, dim))[part]
    mixer = reverse.make(dim=dim, heads=4)

    def sample(key, batch=16):
        kind, noise, hide = jax.random.split(key, 3)
        kinds = jax.random.randint(kind, (batch, parts), 0, len(looks))[:, part]
        image = looks[kinds] + 0.3 * jax.random.normal(noise, (batch, len(part), dim))
        return image, jax.random.uniform(hide, image.shape[:2]) < 0.25

    params = mixer.init(jax.random.key(6))
    optimizer = optax.adam(1e-2)

    def loss(params, image, hidden):
        x = jnp.where(hidden[..., None], 0, image) + places
        y = mixer.apply(params, x)
        return jnp.mean((y - image) ** 2, where=hidden[..., None])

    def train(carry, key):
        params, state = carry
        value, slope = jax.value_and_grad(loss)(params, *sample(key))
        change, state = optimizer.update(slope, state)
        return (optax.apply_updates(params, change), state), value

    run = jax.jit(lambda p, keys: jax.lax.scan(train, (p, optimizer.init(p)), keys))
    (trained, _), losses = run(params, jax.random.split(jax.random.key(7), 300))
    assert losses[-20:].mean() < 0.4 * losses[:20].mean()
    image, _ = sample(jax.random.key(8))

    def same_part(params):
        found = tree.layer_dependencies(params, image + places, heads=4)
        return float((part[tree.parents(found)] == part).mean())

    assert same_part(trained) > 0.6
    assert same_part(params) < 0.4


def test_bad_input_is_named(plain_checks):
    for call, message in (
        (lambda: reverse.make(dim=M, heads=H, temperature=0), "temperature: expected a positive"),
        (
            lambda: reverse.reversed_attention(Q, K, V, WEIGHTS[:, :, [0, 1, 0]]),
            "sender_weights: expected 1 or 2 heads, got 3",
        ),
        (
            lambda: tree.pool(X, WEIGHTS[:, 1:, 0]),
            "message: expected shape [b=2, t=6], got [2, 5]",
        ),
        (lambda: tree.keep_ratio(0), "layer: expected at least 1, got 0"),
        (lambda: tree.keep_ratio(8), "rate: expected 0 to 1 / 8, got 0.16"),
        (lambda: tree.prune(WEIGHTS[..., 0], 7), "count: expected 1 to 6, got 7"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
