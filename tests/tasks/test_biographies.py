"""Biographies: their weights, their texts, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks import biographies as bio


@pytest.fixture(scope="module")
def world():
    return bio.biographies(jax.random.key(0))


def test_weights_of_values(world):
    p = np.asarray(world.probability)
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)
    several = (p > 0).sum(-1) > 1
    np.testing.assert_array_equal(several, world.ambiguous)
    assert several[:, -1].all()  # what one may have many of
    assert abs(several[:, :-1].mean() - 0.4) < 0.07
    np.testing.assert_array_equal(p.argmax(-1)[:, :-1], np.asarray(world.truth)[:, :-1])
    sorted_weights = np.sort(p, -1)[..., ::-1][..., :3]
    for row in sorted_weights[:, :-1].reshape(-1, 3):
        assert any(np.allclose(row, weights, atol=1e-6) for weights in bio.WEIGHTS)


def test_texts_tell_each_attribute_once_and_are_read_back(world):
    keys = jax.random.split(jax.random.key(1), 200)
    people = jnp.arange(200) % bio.PEOPLE
    texts = np.asarray(jax.jit(jax.vmap(lambda k, p: bio.sample_text(k, world, p)))(keys, people))
    sizes = set()
    for text, person in zip(texts, people, strict=True):
        found, sentences = bio.parse(text)
        assert found == person
        clauses = [clause for sentence in sentences for clause in sentence]
        assert sorted(a for a, _ in clauses) == list(range(bio.ATTRIBUTES))
        assert all(world.probability[person, a, v] > 0 for a, v in clauses)
        sizes |= set(map(len, sentences))
        row = bio.render(found, sentences)
        np.testing.assert_array_equal(row, text[: len(row)])
        assert text[len(row)] == bio.END
        assert not text[len(row) + 1 :].any()
    assert sizes == {1, 2, 3}


@pytest.mark.usefixtures("plain_checks")
def test_bad_input(world):
    with pytest.raises(ValueError, match="ambiguous: expected at most 1, got 2"):
        bio.biographies(jax.random.key(0), ambiguous=2)
    with pytest.raises(ValueError, match="attribute: expected 0 to 7, got 8"):
        bio.render(0, [[(8, 0)]])
    with pytest.raises(ValueError, match="tokens: expected a text, which begins with START"):
        bio.parse(np.array([bio.END]))
    with pytest.raises(ValueError, match="expected an attribute, a value, STOP or END, got 5"):
        bio.parse(np.array([bio.START, bio.FIRST_PERSON, bio.REPHRASE]))
