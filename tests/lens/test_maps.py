"""Diagnostics of attention maps, against sums by hand and maps whose numbers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.lens.maps import map_statistics

compiled = jax.jit(map_statistics, static_argnames="distance")


def test_against_sums_by_hand():
    layers, batch, heads, length = 2, 2, 3, 5
    scores = jax.random.normal(jax.random.key(0), (layers, batch, heads, length, length))
    hidden = jnp.triu(jnp.ones((length, length), bool), 1)
    weights = jax.nn.softmax(jnp.where(hidden, -jnp.inf, scores))
    found = compiled(weights, distance=2)
    a = np.asarray(weights, np.float64)
    for layer in range(layers):
        entropy, norm, spread, sink = [], [], [], []
        local = [[], [], []]
        for sample in a[layer]:
            spread += [np.std(sample[:, i, j]) for i in range(length) for j in range(i + 1)]
            for head in sample:
                norm.append(np.sqrt((head**2).sum()))
                for i, line in enumerate(head):
                    entropy.append(-sum(w * np.log(w) for w in line if w > 0))
                    sink.append(line[0])
                    for n in range(min(i, 2) + 1):
                        local[n].append(line[i - n])
        of_layer = [x[layer] for x in found]
        for value, terms in zip(of_layer[:4], (entropy, norm, spread, sink), strict=True):
            np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)
        np.testing.assert_allclose(of_layer[4], [np.mean(x) for x in local], rtol=1e-5)


def test_maps_whose_numbers_are_known(plain_checks):
    length = 8
    first = jnp.zeros((length, length)).at[:, 0].set(1.0)
    uniform = jnp.tril(jnp.ones((length, length))) / jnp.arange(1, length + 1)[:, None]
    alike = compiled(jnp.stack([first, first])[None, None])
    assert (float(alike.diversity[0]), float(alike.sink[0]), float(alike.entropy[0])) == (0, 1, 0)
    np.testing.assert_allclose(alike.concentration, np.sqrt(length), rtol=1e-6)
    flat = compiled(uniform[None, None, None])
    np.testing.assert_allclose(flat.entropy, np.log(np.arange(1, length + 1)).mean(), rtol=1e-5)
    np.testing.assert_allclose(flat.concentration**2, (1 / np.arange(1, 9)).sum(), rtol=1e-5)
    assert compiled(jnp.stack([first, uniform])[None, None]).diversity[0] > 0.1
    with pytest.raises(ValueError, match="distance: expected 0 to 7, got 8"):
        map_statistics(uniform[None, None, None], distance=8)
    with pytest.raises(ValueError, match="weights: expected square maps, got 7 rows of 8"):
        map_statistics(uniform[None, None, None, 1:])
