"""The image classifier: patches, any bidirectional mechanism as a layer, bad sizes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn.nn import VisionTransformer, VisionTransformerConfig
from jattn.nn.vision_transformer import patches

SIZES: Any = dict(classes=3, height=4, width=6, channels=2, patch=2, dim=8, heads=2)


def test_mechanisms_differ_by_layer_and_all_parameters_count():
    config = VisionTransformerConfig(
        **SIZES, mechanisms=("softmax_attention", ("minimal_attention", {"qk": "shared"}))
    )
    definition, params = nnx.split(VisionTransformer(config, rngs=nnx.Rngs(0)), nnx.Param)
    images = jax.random.normal(jax.random.key(1), (5, 4, 6, 2))

    @jax.jit
    def loss(params):
        return (nnx.merge(definition, params)(images) ** 2).sum()

    gradients = jax.tree.leaves(jax.grad(loss)(params))
    assert all(np.abs(g).max() > 0 for g in gradients)


def test_patches_are_squares_of_the_image():
    images = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    cut = patches(images, 2)
    assert cut.shape == (2, 6, 12)
    np.testing.assert_array_equal(cut[1, 4].reshape(2, 2, 3), images[1, 2:4, 2:4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 4}, "patch: expected a divisor of width=6, got 4"),
        ({"classes": 0}, "classes: expected at least 1, got 0"),
        ({"mechanisms": ("softmax_attention",)}, "mechanisms: expected one, or one for each of 2"),
        ({"mechanisms": "retention"}, "causal: retention has only a causal form"),
    ],
)
def test_bad_sizes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        VisionTransformerConfig(**{**SIZES, **change})


def test_other_images_are_refused(plain_checks):
    model = VisionTransformer(VisionTransformerConfig(**SIZES), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"images: expected shape .*width=6"):
        model(jnp.ones((1, 4, 4, 2)))


def test_a_pool_by_name_takes_the_place_of_the_mean():
    images = jax.random.normal(jax.random.key(1), (5, 4, 6, 2))
    plain = VisionTransformer(VisionTransformerConfig(**SIZES), rngs=nnx.Rngs(0))
    tokens = plain.tokens(images)
    assert tokens.shape == (5, 6, 8)
    np.testing.assert_allclose(plain(images), plain.head(tokens.mean(1)), atol=1e-5)

    config = VisionTransformerConfig(**SIZES, pool=("efficient_probing", {"queries": 2}))
    pooled = VisionTransformer(config, rngs=nnx.Rngs(0))
    assert pooled(images).shape == (5, 3)
    assert pooled.pool is not None
    pooled.pool.params["queries"][...] = jnp.zeros((2, 8))
    value = pooled.pool.params["value"][...]
    expected = pooled.head(pooled.tokens(images).mean(1) @ value)
    np.testing.assert_allclose(pooled(images), expected, atol=1e-5)

    normed = VisionTransformer(
        VisionTransformerConfig(**SIZES, pool="dolg_pooling"), rngs=nnx.Rngs(0)
    )
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(normed, nnx.BatchStat))]
    normed(images, training=True)
    after = jax.tree.leaves(nnx.state(normed, nnx.BatchStat))
    assert any(np.abs(a - b).max() > 0 for a, b in zip(after, before, strict=True))

    with pytest.raises(ValueError, match="pool: expected a pool, got 'se', a gate"):
        VisionTransformerConfig(**SIZES, pool="se")
    with pytest.raises(ValueError, match="pool: expected None with carry_messages"):
        VisionTransformerConfig(
            **SIZES, mechanisms="reversed_attention", carry_messages=True, pool="simpool"
        )
