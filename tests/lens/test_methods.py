"""Conformance of all registered methods, and what each of them promises by itself."""

import jax
import numpy as np
import pytest
from flax import nnx

from jattn import lens
from jattn.lens import methods
from jattn.nn import Llama, LlamaConfig

CONFIG = LlamaConfig(vocab_size=11, dim=16, layers=2, heads=4, kv_heads=2, hidden=24)


@jax.enable_x64(False)
def made():
    tokens = jax.random.randint(jax.random.key(1), (2, 8), 0, 11)
    return Llama(CONFIG, rngs=nnx.Rngs(0)), tokens


MODEL, TOKENS = made()
BY_KIND = {kind: methods.names(kind=kind) for kind in ("maps", "edit", "readout", "training")}


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("name", BY_KIND["maps"])
def test_maps_stay_maps(name):
    """Causal, non-negative, rows that sum to 1; the identity is one; jit is eager."""
    method = methods.info(name)
    given = method.example(jax.random.key(0))
    probs, rest = given["probs"], {n: x for n, x in given.items() if n != "probs"}
    changed = method.function(**given)
    assert np.abs(changed - probs).max() > 1e-3
    near(changed.sum(-1), 1)
    assert (changed >= 0).all()
    assert not np.triu(changed, 1).any()
    together = jax.jit(lambda probs: method.function(probs=probs, **rest))(probs)
    near(together, changed)
    near(method.function(**(given | dict(method.identity or {}))), probs)


@pytest.mark.parametrize("name", BY_KIND["edit"])
def test_edits_edit(name):
    method = methods.info(name)
    given = method.example(jax.random.key(0))
    base = MODEL(TOKENS)
    changed = lens.run(MODEL, TOKENS, edits=[method.function(**given)])[0]
    assert np.isfinite(changed).all()
    assert np.abs(changed - base).max() > 1e-4
    nothing = method.function(**(given | dict(method.identity or {})))
    near(lens.run(MODEL, TOKENS, edits=[nothing])[0], base)


@pytest.mark.parametrize("name", BY_KIND["readout"])
def test_readouts_are_finite_and_within_bounds(name):
    method = methods.info(name)
    least, most = method.bounds or (-np.inf, np.inf)
    for leaf in jax.tree.leaves(method.function(**method.example(jax.random.key(0)))):
        assert np.isfinite(leaf).all()
        assert (np.asarray(leaf) >= least - 1e-6).all()
        assert (np.asarray(leaf) <= most + 1e-6).all()


@pytest.mark.parametrize("name", BY_KIND["training"])
def test_what_training_needs_is_finite(name):
    method = methods.info(name)
    for leaf in jax.tree.leaves(method.function(**method.example(jax.random.key(0)))):
        assert np.isfinite(leaf).all()


def test_the_register():
    assert methods.names() == tuple(sorted(methods.names()))
    with pytest.raises(ValueError, match=r"name: expected one of .*, got 'mind_reading'"):
        methods.info("mind_reading")
