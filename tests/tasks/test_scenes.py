"""Scenes are what their captions say, and readings of images are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks import scenes


@pytest.fixture(scope="module")
def drawn():
    return jax.jit(jax.vmap(scenes.sample_scene))(jax.random.split(jax.random.key(0), 300))


def test_every_scene_is_read_rightly(drawn):
    verdict = scenes.judged(drawn.image, drawn.objects)
    assert verdict.right.all()
    assert not verdict.missing.any()
    assert not verdict.swapped.any()
    counts = scenes.recognized(drawn.image).sum((1, 2))
    assert set(counts.tolist()) == {1, 2, 3}
    np.testing.assert_array_equal(counts, (drawn.objects >= 0).all(-1).sum(1))


def test_objects_are_apart_and_where_masks_say(drawn):
    assert (np.asarray(drawn.masks).sum(1) <= 1).all()
    shown = (drawn.image != scenes.GROUND).any(-1)
    np.testing.assert_array_equal(shown, drawn.masks.any(1))


def test_captions_name_the_objects(drawn):
    for caption, objects in zip(np.asarray(drawn.caption), np.asarray(drawn.objects), strict=True):
        named = [f"{scenes.COLORS[c]} {scenes.SHAPES[s]}" for c, s in objects if c >= 0]
        assert scenes.describe(caption) == ", ".join(named)


def test_what_is_wrong_with_an_image_is_told(drawn):
    objects = np.asarray(drawn.objects)
    two = np.flatnonzero((objects[:, 1, 0] >= 0) & (objects[:, 0, 1] != objects[:, 1, 1]))[:40]
    image = np.asarray(drawn.image[two])
    first = np.asarray(drawn.masks[two, 0])
    without = jnp.asarray(np.where(first[..., None], scenes.GROUND, image))
    count = (objects[two] >= 0).all(-1).sum(1)
    verdict = scenes.judged(without, drawn.objects[two])
    assert not verdict.right.any()
    np.testing.assert_allclose(verdict.missing, 1 / count)
    assert not verdict.swapped.any()
    other = objects[two].copy()
    other[:, [0, 1], 1] = other[:, [1, 0], 1]  # the caption with its shapes exchanged
    verdict = scenes.judged(jnp.asarray(image), jnp.asarray(other))
    np.testing.assert_allclose(verdict.swapped, 2 / count)
    assert not verdict.right.any()


def test_noise_shows_nothing():
    image = jax.random.uniform(jax.random.key(0), (8, 24, 24, 3), minval=-1, maxval=1)
    assert not scenes.recognized(image).any()
