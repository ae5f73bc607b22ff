"""Counts of visible keys against masks written out; what a mask says of tokens."""

import jax.numpy as jnp
import numpy as np
import pytest

from jattn import masks
from jattn.attention import mask_parts

T, S = 7, 9
RNG = np.random.default_rng(0)
REAL = jnp.asarray(RNG.random((2, S)) < 0.6)
IDS = jnp.asarray(RNG.integers(0, 3, (2, S)))
MASKS = {
    "none": None,
    "causal": masks.causal(),
    "from the end": masks.causal(align="end"),
    "window": masks.sliding_window(3, 2, offset=1),
    "prefix": masks.prefix(jnp.array([0, 5])),
    "padding": masks.padding(REAL),
    "causal padding": masks.causal() & masks.padding(REAL) & masks.prefix(7),
    "union": masks.causal() | masks.prefix(4),
    "documents": masks.segments(IDS[:, :T], IDS) & masks.sliding_window(4),
    "by head": masks.from_array(jnp.asarray(RNG.random((2, 3, T, S)) < 0.5)) & masks.causal(),
    "not": ~masks.sliding_window(2),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("at_once", [mask_parts.COUNTED_AT_ONCE, 2 * S])
def test_counts(monkeypatch, name, at_once):
    monkeypatch.setattr(mask_parts, "COUNTED_AT_ONCE", at_once)
    mask = MASKS[name]
    expected = np.full((1, 1, T), S) if mask is None else np.asarray(mask.dense(T, S)).sum(-1)
    found = mask_parts.count_visible(mask, T, S)
    found, expected = np.broadcast_arrays(found, expected)
    np.testing.assert_array_equal(found, expected)


def test_layout():
    ids = IDS[:, :T]
    found = mask_parts.layout(masks.segments(ids) & masks.causal() & masks.padding(REAL[:, :T]), T)
    np.testing.assert_array_equal(found.documents, ids)
    np.testing.assert_array_equal(found.real, REAL[:, :T])
    assert (found.causal, found.ends, found.rest) == (True, False, ())
    # Of two rows of numbers, a window and a union nothing is known but that they are there.
    for other in (masks.segments(ids, ids), masks.sliding_window(3), masks.causal() | MASKS["not"]):
        assert mask_parts.layout(other, T).rest == (other,)
