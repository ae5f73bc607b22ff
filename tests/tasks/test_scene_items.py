"""Scenes and their questions: answers by hand, and what mirroring and reordering do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks import scene_items as si


def ask(scene, aspect, *asked):
    one = lambda value: jnp.array([value])
    found = si.answer(jnp.asarray(scene)[None], one(aspect), *(one(a) for a in asked))
    return int(found.answer[0]), bool(found.valid[0]), int(found.kind[0])


@pytest.fixture(scope="module")
def questions():
    """Scenes, and random questions about them."""
    keys = jax.random.split(jax.random.key(0), 6)
    n = 400
    scenes = si.draw_scenes(keys[0], n)
    draw = lambda k, low, high: jax.random.randint(keys[k], (n,), low, high)
    shapes = draw(2, -1, 4), draw(3, -1, 4), draw(4, -1, 4), draw(5, -1, 4)
    return scenes, draw(1, 0, 6), shapes


def test_answers_by_hand():
    scene = [[0, 1, 1, 0, 0], [0, 2, 0, 3, 1], [1, 2, 0, 3, 3], [-1] * 5]
    any_ = -1
    assert ask(scene, si.EXISTENCE, 0, 1, any_, any_) == (1, True, si.PRESENT)
    assert ask(scene, si.EXISTENCE, 1, 1, any_, any_) == (0, True, si.BINDING)
    assert ask(scene, si.EXISTENCE, 3, 1, any_, any_) == (0, True, si.ABSENT)
    assert ask(scene, si.COUNT, 0, any_, any_, any_) == (2, True, -1)
    assert ask(scene, si.COLOUR, 1, any_, any_, any_) == (2, True, -1)
    assert ask(scene, si.COLOUR, 0, any_, any_, any_) == (-1, False, -1)  # there are two
    assert ask(scene, si.SIZE, 0, 1, any_, any_) == (1, True, -1)
    assert ask(scene, si.POSITION, 1, any_, any_, any_) == (3, True, -1)
    assert ask(scene, si.RELATION, 0, 1, 0, 2) == (2, True, -1)  # above
    assert ask(scene, si.RELATION, 1, 2, 0, 2) == (1, True, -1)  # to the right
    assert ask(scene, si.RELATION, 0, 1, 1, 2) == (-1, False, -1)  # 3 down and 3 across
    assert ask(scene, si.RELATION, 0, 1, 0, 1) == (-1, False, -1)  # itself


def test_order_of_objects_does_not_matter(questions):
    scenes, aspect, asked = questions
    one, two = (si.answer(s, aspect, *asked) for s in (scenes, scenes[:, ::-1]))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(si.render(scenes[:9]), si.render(scenes[:9, ::-1]), atol=1e-6)


def test_a_mirror_swaps_left_and_right_only(questions):
    scenes, aspect, asked = questions
    column = scenes[..., 4]
    mirrored = scenes.at[..., 4].set(jnp.where(column >= 0, 3 - column, -1))
    np.testing.assert_allclose(
        si.render(scenes[:9])[:, :, ::-1], si.render(mirrored[:9]), atol=1e-6
    )
    one, two = (si.answer(s, aspect, *asked) for s in (scenes, mirrored))
    np.testing.assert_array_equal(one.valid, two.valid)
    before, after = np.asarray(one.answer), np.asarray(two.answer)
    swapped = np.isin(before, (0, 1)) & (np.asarray(aspect) == si.RELATION)
    swapped |= (before >= 0) & (np.asarray(aspect) == si.POSITION)
    np.testing.assert_array_equal(after, np.where(swapped, before ^ 1, before))


def test_scenes_and_images():
    scenes = np.asarray(si.draw_scenes(jax.random.key(1), 200))
    there = scenes[..., 0] >= 0
    assert set(there.sum(1)) == {1, 2, 3, 4}
    cells = np.where(there, scenes[..., 3] * 4 + scenes[..., 4], -1 - np.arange(4))
    assert all(len(set(row)) == 4 for row in cells)
    images = np.asarray(si.render(jnp.asarray(scenes[:50])))
    assert images.shape == (50, 32, 32, 3)
    lit = images.reshape(50, 4, 8, 4, 8, 3).max((2, 4, 5)) > 0
    assert (lit.sum((1, 2)) == there[:50].sum(1)).all()
    # All shapes, colours and sizes look different.
    alone = [[[s, c, z, 0, 0]] for s in range(4) for c in range(4) for z in range(2)]
    looks = np.asarray(si.render(jnp.array(alone), side=1)).reshape(32, -1)
    assert (np.abs(looks[:, None] - looks).max(-1) > 0.05).sum() == 32 * 31
    one_pair = jnp.zeros((4, 4), bool).at[2, 3].set(True)
    only = si.draw_scenes(jax.random.key(2), 20, allowed=one_pair)
    assert set(np.unique(only[..., 0])) == {-1, 2}


@pytest.mark.usefixtures("plain_checks")
def test_bad_scenes():
    with pytest.raises(ValueError, match=r"objects: expected at most side\^2=4, got 5"):
        si.draw_scenes(jax.random.key(0), 1, side=2, objects=5)
    with pytest.raises(ValueError, match="allowed: expected at least one pair of shape and colour"):
        si.draw_scenes(jax.random.key(0), 1, allowed=jnp.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="scene: expected"):
        si.answer(jnp.zeros((1, 2, 4), int), *(jnp.zeros(1, int) for _ in range(5)))
