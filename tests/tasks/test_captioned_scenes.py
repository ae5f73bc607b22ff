"""Made scenes and their captions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks import captioned_scenes as scenes


@pytest.fixture(scope="module")
def drawn():
    def one(key):
        of_scene, of_caption = jax.random.split(key)
        scene = scenes.sample_scene(of_scene)
        objects = scenes.sample_caption(of_caption, scene)
        return scene, objects, scenes.image_tokens(scene)

    keys = jax.random.split(jax.random.key(0), 4_000)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))


def test_scenes(drawn):
    scene, _, (tokens, count) = drawn
    assert not (scene.seen & ~scene.present).any()
    inside = np.arange(scenes.OBJECTS) // scenes.IN_TOPIC == scene.topic[:, None]
    assert scene.present[inside].mean() == pytest.approx(scenes.LIKELY, abs=0.01)
    assert scene.present[~inside].mean() == pytest.approx(scenes.RARE, abs=0.01)
    assert 1 - scene.seen[scene.present].mean() == pytest.approx(scenes.UNSEEN, abs=0.01)
    for row in range(50):
        shown = np.flatnonzero(scene.seen[row])
        wanted = scenes.FIRST_SEEN + shown * scenes.PLACES + scene.place[row, shown]
        np.testing.assert_array_equal(tokens[row, : len(shown)], wanted)
        assert tokens[row, len(shown)] == scenes.START
        assert count[row] == len(shown) + 1


def test_captions_say_what_is_not_there_the_more_the_later(drawn):
    scene, objects, _ = drawn
    told = objects >= 0
    assert (np.diff(told.astype(int), axis=1) <= 0).all()
    for row in objects[:200]:
        assert len(set(row[row >= 0])) == (row >= 0).sum()
    there = np.take_along_axis(scene.present, np.maximum(objects, 0), axis=1)
    wrong = (told & ~there).sum(0) / told.sum(0)
    rates = np.linspace(scenes.FIRST_FALSE, scenes.LAST_FALSE, scenes.SENTENCES)
    np.testing.assert_allclose(wrong[:6], rates[:6], atol=0.035)
    inside = np.arange(scenes.OBJECTS) // scenes.IN_TOPIC == scene.topic[:, None]
    some = (inside & ~scene.present).any(1) & ~there[:, 0]
    assert some.sum() > 10
    assert inside[some, objects[some, 0]].all()  # first those of the topic


def test_tokens_are_read_back(drawn):
    scene, objects, _ = drawn
    place = np.take_along_axis(scene.place, np.maximum(objects, 0), axis=1)
    tokens, length = scenes.sentence_tokens(jnp.asarray(objects[:40]), jnp.asarray(place[:40]))
    for row in range(40):
        wanted = [(int(o), int(p)) for o, p in zip(objects[row], place[row], strict=True) if o >= 0]
        assert scenes.parse(np.asarray(tokens[row])) == wanted
        assert length[row] == 2 * len(wanted) + 1
        assert tokens[row, length[row] - 1] == scenes.END


@pytest.mark.usefixtures("plain_checks")
def test_bad_input(drawn):
    scene = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), drawn[0])
    with pytest.raises(ValueError, match="sentences: expected at least 1, got 0"):
        scenes.sample_caption(jax.random.key(0), scene, sentences=0)
    with pytest.raises(ValueError, match="expected an object and a place, got 5 and 6"):
        scenes.parse(np.array([5, 6]))
