"""The image classifier of reversed attention: messages, pruning, pooling and a tree, by hand."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn.mechanisms.softmax.layered_tree import tree
from jattn.nn import VisionTransformer, VisionTransformerConfig

HEADS, DIM = 2, 8
SIZES: Any = dict(classes=3, height=4, width=6, channels=1, patch=2, dim=DIM, heads=HEADS)
IMAGES = jax.random.normal(jax.random.key(1), (3, 4, 6, 1))


def make(**options: Any) -> VisionTransformer:
    given: Any = dict(mechanisms="reversed_attention", carry_messages=True) | options
    return VisionTransformer(VisionTransformerConfig(**SIZES, **given), rngs=nnx.Rngs(0))


def by_hand(model, images, kept_counts):
    """Logits, and D of each layer with the patches that it sees: float64, one image at a time."""
    double = lambda variable: np.asarray(variable[...], np.float64)
    norm = lambda x, scale: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    erf = np.vectorize(math.erf)
    logits, trail = [], []
    for image in np.asarray(images, np.float64):
        cut = [image[y : y + 2, x : x + 2].ravel() for y in (0, 2) for x in (0, 2, 4)]
        x = np.stack(cut) @ double(model.embed.kernel) + double(model.embed.bias)
        x = x + double(model.places.embedding)
        message, index, layers = np.ones(len(x)), np.arange(len(x)), []
        for block, count in zip(model.blocks, kept_counts, strict=True):
            p = {name: double(variable) for name, variable in block.mixer.params.items()}
            seen = norm(x, double(block.mixer_norm.scale))
            hidden = seen @ p["message_up"]
            hidden = 0.5 * hidden * (1 + erf(hidden / 2**0.5))
            message = message * sigmoid(hidden @ p["message_down"])[:, 0]
            share = np.exp(seen @ p["select"] / 0.1)
            share /= share.sum(-1, keepdims=True)
            dependency, told = np.zeros((len(x), len(x))), []
            for h in range(HEADS):
                own = slice(h * DIM // HEADS, (h + 1) * DIM // HEADS)
                query, key, value = (seen @ p[n][:, own] for n in ("query", "key", "value"))
                weights = np.exp(query @ key.T / (DIM // HEADS) ** 0.5)
                weights /= weights.sum(-1, keepdims=True)
                sent = weights * (share[:, h] * message)[:, None]
                dependency += sent.T
                told.append(sent.T @ value)
            layers.append((dependency, index))
            x = x + np.concatenate(told, -1) @ p["output"]
            score = message * share.max(-1)
            kept = np.sort(np.argsort(-score)[:count])
            x, message, index = x[kept], message[kept], index[kept]
        pooled = (message[:, None] * norm(x, double(model.norm.scale))).mean(0)
        logits.append(pooled @ double(model.head.kernel) + double(model.head.bias))
        trail.append(layers)
    return np.stack(logits), trail


def test_a_model_that_prunes_by_hand():
    """Six patches, of which layers 0 and 2 drop a quarter each: 6, then 4 (4.5 rounded), then 3."""
    model = make(layers=3, mlp_ratio=0.0, prune_after=(0, 2), prune_rate=0.25)
    expected, trail = by_hand(model, IMAGES, (4, 4, 3))
    logits = nnx.jit(lambda model, images: model(images))(model, IMAGES)
    np.testing.assert_allclose(logits, expected, atol=2e-5)
    found = model.dependencies(IMAGES)
    total = np.zeros((3, 6, 6))
    for image, layers in enumerate(trail):
        for layer, (dependency, index) in enumerate(layers):
            np.testing.assert_array_equal(found.patches[layer][image], index)
            np.testing.assert_allclose(found.layers[layer][image], dependency, atol=1e-5)
            total[image][np.ix_(index, index)] += dependency
    np.testing.assert_allclose(found.total, total, atol=2e-5)
    np.testing.assert_array_equal(found.parents, tree(jnp.asarray(total, jnp.float32)))


def test_messages_are_handed_on_and_pooled_by():
    """Without pruning: as by hand with all patches, and not as layers that start M anew."""
    carrying, plain = make(layers=2, mlp_ratio=0.0), make(carry_messages=False, mlp_ratio=0.0)
    expected, _ = by_hand(carrying, IMAGES, (6, 6))
    np.testing.assert_allclose(carrying(IMAGES), expected, atol=2e-5)
    assert np.abs(np.asarray(plain(IMAGES)) - expected).max() > 1e-2


def test_all_parameters_have_a_gradient():
    model = make(prune_after=(1,), mlp_ratio=2.0)
    definition, params = nnx.split(model, nnx.Param)

    @jax.jit
    def loss(params):
        logits, losses = nnx.merge(definition, params)(IMAGES, training=True)
        assert not losses
        return (logits**2).sum()

    gradients = jax.tree.leaves(jax.grad(loss)(params))
    assert all(np.abs(g).max() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mechanisms": ("reversed_attention", "softmax_attention")},
            "carry_messages: expected layers of reversed_attention, got softmax_attention",
        ),
        ({"carry_messages": 1}, "carry_messages: expected True or False"),
        ({"carry_messages": False, "prune_after": (0,)}, "prune_after: needs carry_messages=True"),
        ({"prune_after": (0, 2)}, r"prune_after: expected different layers, 0 to 1, got \(0, 2\)"),
        ({"prune_after": (0, 0)}, r"prune_after: expected different layers, 0 to 1, got \(0, 0\)"),
        ({"prune_after": (0, 1), "prune_rate": 0.5}, "prune_rate: expected 0 to 1 / 2, got 0.5"),
    ],
)
def test_bad_settings_are_named(plain_checks, change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_other_models_have_no_dependencies():
    with pytest.raises(ValueError, match="carry_messages: expected a model made with True"):
        make(carry_messages=False).dependencies(IMAGES)
