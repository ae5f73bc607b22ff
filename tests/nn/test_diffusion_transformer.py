"""The denoiser: what it is made of, and its maps under the lens."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn import lens
from jattn.lens.methods.guidance import soft_identity
from jattn.nn import DiffusionTransformer, DiffusionTransformerConfig

SIZES: dict[str, Any] = dict(
    vocab_size=9, caption=4, height=8, width=4, patch=2, dim=16, heads=2, layers=2
)


def woken(model):
    """With parameters at random where they start at zero."""
    state = nnx.state(model, nnx.Param)
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [p + 0.2 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    nnx.update(model, jax.tree.unflatten(structure, moved))
    return model


def made(**changes):
    config = DiffusionTransformerConfig(**{**SIZES, **changes})
    return woken(DiffusionTransformer(config, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def inputs():
    image = jax.random.normal(jax.random.key(0), (3, 8, 4, 3))
    return image, jnp.array([0.1, 0.5, 0.9]), jnp.array([[1, 2, 3, 4], [1, 5, 6, 0], [1, 0, 0, 0]])


def test_time_caption_and_place_matter(model, inputs):
    images, time, caption = inputs
    y = model(*inputs)
    assert y.shape == images.shape
    for other in ((images, time + 0.05, caption), (images, time, caption[:, [0, 2, 1, 3]])):
        assert (jnp.abs(model(*other) - y).max((1, 2, 3))[:2] > 1e-4).all()
    # Patches have places: an image upside down is not the same one turned.
    assert jnp.abs(model(images[:, ::-1], time, caption)[:, ::-1] - y).max() > 1e-3


def test_it_begins_by_saying_nothing(inputs):
    fresh = DiffusionTransformer(DiffusionTransformerConfig(**SIZES), rngs=nnx.Rngs(0))
    assert not fresh(*inputs).any()


def test_looking_changes_nothing_and_maps_are_distributions(model, inputs):
    record = lens.Looked(record=("probs", "logits"))
    y, itself, cross = lens.run_denoiser(model, *inputs, itself=record, cross=record)
    np.testing.assert_allclose(y, model(*inputs), atol=1e-5)
    assert itself["probs"].shape == (2, 3, 2, 8, 8)
    assert cross["probs"].shape == (2, 3, 2, 8, 4)
    for found in (itself, cross):
        np.testing.assert_allclose(found["probs"].sum(-1), 1, atol=1e-5)


def test_hiding_a_word_is_as_if_its_weight_were_zero(model, inputs):
    hide = lens.KeyReweight(jnp.array([1.0, 0.0, 1.0, 1.0])[None, None, None, None])
    _, _, cross = lens.run_denoiser(model, *inputs, cross=lens.Looked([hide], ("probs",)))
    assert not cross["probs"][..., 1].any()
    np.testing.assert_allclose(cross["probs"].sum(-1), 1, atol=1e-5)


def test_soft_identity_at_full_strength_makes_each_patch_see_itself(model, inputs):
    y = lambda edit: lens.run_denoiser(model, *inputs, itself=lens.Looked([edit]))[0]
    whole = soft_identity(jnp.ones((2, 2)))
    probs = lens.At("probs", lambda value, _, seen: jnp.broadcast_to(jnp.eye(8), value.shape))
    np.testing.assert_allclose(y(whole), y(probs), atol=1e-5)
    np.testing.assert_allclose(y(soft_identity(jnp.zeros((2, 2)))), model(*inputs), atol=1e-5)


def test_gradients_reach_the_image_through_the_maps(model, inputs):
    images, time, caption = inputs

    def mass(images):
        looked = lens.Looked(record=("probs",))
        found = lens.run_denoiser(model, images, time, caption, cross=looked)[2]["probs"]
        return (found[..., 1] ** 2).sum()

    gradient = jax.grad(mass)(images)
    way, step = jax.random.normal(jax.random.key(1), images.shape), 1e-2
    slope = (mass(images + step * way) - mass(images - step * way)) / (2 * step)
    np.testing.assert_allclose((gradient * way).sum(), slope, rtol=0.05)


def test_patches_can_see_each_other_by_another_mechanism(inputs):
    model = made(mechanisms=("linear_attention", "softmax_attention"))
    looked = lens.Looked(record=("z",))
    y, itself, _ = lens.run_denoiser(model, *inputs, itself=looked)
    np.testing.assert_allclose(y, model(*inputs), atol=1e-5)
    assert itself["z"].shape == (2, 3, 8, 2, 8)


def test_bad_input_is_one_line(model, inputs):
    images, time, caption = inputs
    with pytest.raises(ValueError, match="caption"):
        model(images, time, caption[:, :3])
    with pytest.raises(ValueError, match="images"):
        model(images[:, :6], time, caption)
    with pytest.raises(ValueError, match=r"cross\.record: expected"):
        lens.run_denoiser(model, *inputs, cross=lens.Looked(record=("maps",)))
    with pytest.raises(ValueError, match="mechanism"):
        DiffusionTransformerConfig(**{**SIZES, "mechanisms": "nothing"})
