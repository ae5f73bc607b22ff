"""Clips of moving images: where they are, that they bounce, that nothing is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks.moving_images import moving_images, placed, spots


def test_an_image_at_whole_pixels_is_copied():
    image = jnp.arange(1.0, 5.0).reshape(2, 2)
    expected = np.zeros((4, 4))
    expected[1:3, 2:4] = image
    np.testing.assert_allclose(placed(image, jnp.array(1.0), jnp.array(2.0), 4), expected)


def test_between_pixels_nothing_is_lost():
    image = jax.random.uniform(jax.random.key(0), (3, 3))
    found = placed(image, jnp.array(1.3), jnp.array(2.7), 8)
    np.testing.assert_allclose(found.sum(), image.sum(), rtol=1e-5)


def test_one_image_moves_steadily_and_bounces():
    dot = jnp.ones((1, 1))
    sample = moving_images(dot[None], side=9, frames=40, count=1, slowest=0.5, fastest=1.0)
    clip = np.asarray(sample(jax.random.key(3)))
    np.testing.assert_allclose(clip.sum((1, 2)), 1, rtol=1e-5)  # it never leaves the screen
    rows = clip.sum(2) @ np.arange(9)
    speed = np.abs(np.diff(rows))
    assert 0.5 <= np.median(speed) <= 1.0
    same = np.isclose(speed, np.median(speed), atol=1e-3)
    assert 25 < same.sum() < len(same)  # slower only in the frame of a bounce
    assert (speed <= np.median(speed) + 1e-3).all()


def test_the_brighter_one_is_seen():
    images = spots([1.0, 2.0], 5)
    sample = moving_images(images, side=8, frames=5, count=3)
    clips = jax.vmap(sample)(jax.random.split(jax.random.key(0), 20))
    assert clips.shape == (20, 5, 8, 8)
    assert 0 <= float(clips.min()) < float(clips.max()) <= 1


@pytest.mark.parametrize(
    ("field", "options"), [("side", {"side": 4}), ("fastest", {"fastest": 0.1})]
)
def test_sizes_that_do_not_fit_are_refused(field, options):
    with pytest.raises(ValueError, match=f"^{field}"):
        moving_images(jnp.ones((1, 4, 4)), **options)
