"""Pointing at objects: heads, the slot behind them, and codes of places."""

import jax
import jax.numpy as jnp
import numpy as np

from jattn.attention.positions import sinusoids
from jattn.mechanisms import zoo
from jattn.mechanisms.pointer.object_pointer import gaussian_similarity_table, head_logits

M, H, T, S = 6, 2, 3, 5
RNG = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(RNG.standard_normal(shape), jnp.float32)
POINTER = zoo.make("oat", dim=M, heads=H, stop=True)
PARAMS = jax.jit(POINTER.init)(jax.random.key(0))
APPLY = jax.jit(POINTER.apply)
QUERY, TOKENS = draw(2, T, M), draw(2, S, M)


def close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_the_slot_stands_once_and_behind():
    logits = APPLY(PARAMS, QUERY, TOKENS)
    assert logits.shape == (2, T, S + 1)
    close(logits[..., -1], PARAMS["readout"]["bias"][0])
    assert (head_logits(PARAMS, QUERY, TOKENS, heads=H, stop=True)[..., -1, :] == 0).all()
    order = RNG.permutation(S)
    moved = APPLY(PARAMS, QUERY, TOKENS[:, order])
    close(moved, logits[..., np.append(order, S)])


def test_a_mask_hides_objects_and_not_the_slot():
    mask = jnp.array([[True] * S, [False] * S])
    chance = jax.nn.softmax(jax.jit(POINTER.apply)(PARAMS, QUERY, TOKENS, mask=mask))
    close(chance[1, :, -1], 1)
    close(chance.sum(-1), 1)


def test_queries_of_zero_point_everywhere():
    still = PARAMS | {"query": jax.tree.map(jnp.zeros_like, PARAMS["query"])}
    close(jax.nn.softmax(APPLY(still, QUERY, TOKENS)), 1 / (S + 1))


def test_similarity_is_a_gaussian_of_distance():
    """Exactly, and it falls all the way, as that of sinusoids does not."""
    codes = gaussian_similarity_table(8, 2.0)
    apart = np.arange(8)[:, None] - np.arange(8)
    close(codes @ codes.T, np.exp(-(apart**2) / 8))
    waves = sinusoids(jnp.arange(8), 8)
    cosine = (waves @ waves.T) / 4
    assert (np.diff((codes @ codes.T)[0]) < 0).all()
    assert not (np.diff(cosine[0]) < 0).all()
