"""Probes of binding: what each can and cannot read, and exchanges inside a subspace."""

import jax
import jax.numpy as jnp
import numpy as np

from jattn.lens import object_binding as binding

RNG = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_symmetry_and_the_diagonal():
    x, y, w = draw(5, 4), draw(5, 4), draw(4, 4)
    close(binding.quadratic_probe(x, y, w), binding.quadratic_probe(y, x, w))
    d = draw(4)
    close(binding.quadratic_probe(x, y, jnp.diag(d)), binding.diagonal_probe(x, y, d / 2))
    close(binding.diagonal_probe(x, y, d), binding.diagonal_probe(y, x, d))


def test_an_identity_without_a_label_needs_a_product():
    """Random codes, one an object: x + y says nothing of whether they are the same."""
    codes = jnp.asarray(RNG.choice([-1.0, 1.0], (4096, 2)), jnp.float32)
    other = jnp.asarray(RNG.choice([-1.0, 1.0], (4096, 2)), jnp.float32)
    same = (codes == other).all(-1)
    quadratic = binding.quadratic_probe(codes, other, jnp.eye(2), -1.0) > 0
    assert (quadratic == same).all()
    features = jnp.concatenate([codes + other, jnp.ones((4096, 1))], axis=1)
    target = same.astype(jnp.float32)
    best = features @ jnp.linalg.lstsq(features, target)[0]
    # The best linear reading of x + y is a constant, by symmetry of the codes.
    close(best, target.mean(), 0.05)


def test_exchanges_stay_inside_the_subspace():
    x, w = draw(6, 5), draw(5, 5)
    basis = binding.binding_subspace(w, 2)
    projector = basis @ basis.T
    close(projector @ projector, projector)
    order = jnp.array([1, 0, 3, 2, 5, 4])
    swapped = binding.swap_subspace(x, basis, order)
    close(binding.swap_subspace(swapped, basis, order), x)
    close(binding.swap_subspace(x, basis, jnp.arange(6)), x)
    close(swapped - swapped @ projector, x - x @ projector)
    none = jnp.zeros(6, bool)
    close(binding.swap_subspace(x, basis, order, none), x)
    full = binding.truncated(w, 5)
    close(binding.quadratic_probe(x, x, full), binding.quadratic_probe(x, x, w), 1e-4)


def test_injected_binding_is_one_vector_an_object():
    x, basis = draw(6, 5), binding.binding_subspace(draw(5, 5), 2)
    labels = jnp.array([0, 0, 1, 1, 1, 2])
    close(binding.inject_binding(x, basis, labels, 0.0), x)
    inside = binding.inject_binding(x, basis, labels, 1.0) @ basis
    close(inside[0], inside[1])
    close(inside[2:5], jnp.broadcast_to((x @ basis)[2:5].mean(0), (3, 2)))
    assert binding.same_object(labels).sum() == 4 + 9 + 1


def test_classes_say_less_than_instances():
    """Of two objects of one class probabilities of classes say that they are one."""
    p = jax.nn.one_hot(jnp.array([0, 0, 1]), 2)
    close(binding.same_class_probability(p)[0], [1, 1, 0])
