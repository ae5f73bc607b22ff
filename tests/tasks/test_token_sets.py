"""Sets of tokens: what is planted is there, as often as it should be."""

import jax
import jax.numpy as jnp
import numpy as np

from jattn.tasks.flagged_tokens import ATTRIBUTE, ATTRIBUTES, FLAG, flagged_tokens
from jattn.tasks.instance_bags import EACH, KINDS, instance_bag


def draws(sample, count):
    return jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), count))


def test_flagged_tokens_hold_their_class():
    x, label, places = draws(lambda key: flagged_tokens(key, tokens=5, dim=8, noise=0.0), 256)
    x, places = np.asarray(x), np.asarray(places)
    assert (places[:, 0] != places[:, 1]).all()
    flagged = np.take_along_axis(x, places[..., None], axis=1)
    # Flags and attributes are orthogonal, so tokens of one flag differ in attributes alone.
    inner = np.einsum("afm,bfm->fab", flagged, flagged)
    parts = np.asarray(label) // ATTRIBUTES, np.asarray(label) % ATTRIBUTES
    for flag, attribute in enumerate(parts):
        alike = attribute[:, None] == attribute
        expected = FLAG**2 + ATTRIBUTE**2 * alike
        np.testing.assert_allclose(inner[flag], expected, rtol=1e-4)
    across = np.einsum("am,bm->ab", flagged[:, 0], flagged[:, 1])
    same = parts[0][:, None] == parts[1]
    np.testing.assert_allclose(across, ATTRIBUTE**2 * same, atol=1e-4)  # one table for both
    assert len(np.unique(label)) == ATTRIBUTES**2


def test_a_mean_does_not_say_whose_attribute_is_whose():
    """Without noise the means of classes (a, b) and (b, a) are the same."""
    x, label, _ = draws(lambda key: flagged_tokens(key, tokens=4, dim=8, noise=0.0), 512)
    means = {int(k): np.asarray(x.mean(1))[np.asarray(label) == k][0] for k in range(16)}
    np.testing.assert_allclose(means[4 * 1 + 2], means[4 * 2 + 1], atol=1e-5)
    assert np.abs(means[4 * 1 + 2] - means[4 * 1 + 3]).max() > 0.05


def test_bags_have_two_of_each_unusual_kind():
    bag = lambda key: instance_bag(key, instances=12, dim=5, shift=100.0)
    x, positive, unusual = draws(bag, 128)
    kinds = np.asarray((x[..., :KINDS] > 50).sum(1))
    np.testing.assert_array_equal(kinds, EACH * np.asarray(positive)[:, None] * np.ones(KINDS, int))
    np.testing.assert_array_equal((x.max(-1) > 50), unusual)
    assert 0.3 < float(jnp.mean(positive)) < 0.7
    assert len(np.unique(np.asarray(unusual).argmax(1))) > 3  # anywhere
