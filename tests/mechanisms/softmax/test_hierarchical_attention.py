"""Attention over trees: its definition, its optimality, and what it costs."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.mechanisms import zoo
from jattn.mechanisms.softmax import hierarchical_attention as tree
from jattn.testing import flops

B, T, H, D = 1, 11, 2, 4
Q, K, V = jax.random.normal(jax.random.key(0), (3, B, T, H, D))
# Three levels, families of one to four.
SEGMENTS = [[0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 4], [0, 0, 0, 1, 1]]
UNEVEN = tree.tree_of_segments(SEGMENTS)
attention = jax.jit(tree.tree_attention, static_argnames=("score", "return_energy"))
UNITS = jnp.broadcast_to(jnp.eye(T)[None, :, None], (B, T, H, T))


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def weights_of(q, k, families, **options):
    return np.moveaxis(np.asarray(attention(q, k, UNITS, families, **options)), 2, 1)


def by_definition(q, k, families, places=None):
    """Weights of one head `[t, t]`, and phi(root), by recursion over lists of leaves."""
    places = np.zeros((9, 1)) if places is None else np.asarray(places)
    q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
    theta = np.zeros((len(q), len(q)))

    def leaves(level, node):
        if level < 0:
            return [node]
        return [
            x for child in families[level][node] if child >= 0 for x in leaves(level - 1, child)
        ]

    def score(one, other, i, j):
        product = np.mean(q[one], 0) @ np.mean(k[other], 0)
        return product / math.sqrt(q.shape[1]) + places[i] @ places[j]

    def visit(level, node, slot=0):
        """phi of a node, and for each child its leaves, its ln Z and its weights to siblings."""
        if level < 0:
            return -score([node], [node], slot, slot)
        children = [(i, c) for i, c in enumerate(families[level][node]) if c >= 0]
        below = {c: leaves(level - 1, c) for _, c in children}
        total = sum(map(len, below.values()))
        phi = 0.0
        for i, child in children:
            terms = {
                c: np.log(len(below[c])) + score(below[child], below[c], i, j)
                for j, c in children
                if c != child
            }
            terms[child] = -visit(level - 1, child, i)
            log_z = np.log(np.sum(np.exp(list(terms.values()))))
            kinds[level, node, child] = {c: np.exp(s - log_z) for c, s in terms.items()}, below
            phi -= len(below[child]) / total * log_z
        return phi

    def fill(level, node, mass):
        if level < 0:
            theta[node, node] = mass
            return
        for child in families[level][node]:
            if child < 0:
                continue
            shares, below = kinds[level, node, child]
            for c, share in shares.items():
                if c != child:
                    theta[np.ix_(below[child], below[c])] = mass * share / len(below[c])
            fill(level - 1, child, mass * shares[child])

    kinds: dict = {}
    phi = visit(len(families) - 1, 0)
    fill(len(families) - 1, 0, 1.0)
    return theta, phi


def divergence(theta, softmax):
    return (theta * (np.log(theta) - np.log(softmax))).sum((-2, -1))


@pytest.mark.parametrize("placed", [False, True])
def test_the_recursion_is_the_definition(placed):
    places = jax.random.normal(jax.random.key(1), (4, 2)) if placed else None
    weights, energy = attention(Q, K, UNITS, UNEVEN, sibling_positions=places, return_energy=True)
    weights = np.moveaxis(np.asarray(weights), 2, 1)
    for head in range(H):
        theta, phi = by_definition(Q[0, :, head], K[0, :, head], UNEVEN, places)
        near(weights[0, head], theta, 1e-5)
        near(energy[0, head], phi, 1e-5)
    near(weights.sum(-1), 1.0, 1e-5)
    assert np.ptp(weights[0, :, :2, 5], axis=-1).max() < 1e-6
    assert np.ptp(weights[0, :, :6][:, :, 6:].reshape(H, -1), axis=-1).max() < 1e-6


def test_one_family_is_softmax_attention():
    for families in ([np.arange(T)[None]], tree.balanced_tree(T, 16)):
        near(attention(Q, K, V, families), jax.jit(jattn.attend)(Q, K, V), 1e-5)
    mixer = zoo.make("hierarchical_attention", dim=8, heads=H, branching=T, qk_norm=False)
    plain = zoo.make("softmax_attention", dim=8, heads=H)
    params = mixer.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (B, T, 8))
    near(jax.jit(mixer.apply)(params, x), jax.jit(plain.apply)(params, x), 1e-5)


def test_nothing_of_its_kind_is_nearer_to_softmax():
    scores = jnp.einsum("bthd,bshd->bhts", Q, K) / D**0.5
    softmax = np.asarray(jax.nn.softmax(scores, axis=-1), np.float64)
    theta = weights_of(Q, K, UNEVEN)
    least = divergence(theta, softmax)
    near(jax.jit(tree.tree_divergence)(Q, K, UNEVEN), least, 1e-4)
    assert (least > 0.1).all()
    for seed in range(100, 108):
        q, k = jax.random.normal(jax.random.key(seed), (2, B, T, H, D))
        other = weights_of(q, k, UNEVEN)
        for step in (0.01, 0.1):
            moved = (1 - step) * theta + step * other
            assert (divergence(moved, softmax) > least).all()


def test_blocks_of_equals_are_softmax_attention():
    top = np.array(SEGMENTS[1])[np.array(SEGMENTS[0])]
    q, k = Q[:, top], K[:, top]
    near(weights_of(q, k, UNEVEN), jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / D**0.5, -1))
    near(jax.jit(tree.tree_divergence)(q, k, UNEVEN), np.zeros((B, H)), 1e-4)


def test_an_aligned_tree_is_nearer_than_others():
    """Data that has four segments of four: the divergence tells the tree that has them, too."""
    size = 16
    segment = jnp.repeat(jnp.arange(4), 4)
    centre = jax.random.normal(jax.random.key(2), (2, 1, 4, H, D))
    noise = 0.2 * jax.random.normal(jax.random.key(3), (2, 1, size, H, D))
    q, k = 2 * centre[:, :, segment] + noise
    aligned = tree.balanced_tree(size, 4)
    run = jax.jit(lambda leaves: tree.tree_divergence(q, k, [leaves, aligned[1]]))
    found = run(aligned[0])
    orders = jax.vmap(lambda key: jax.random.permutation(key, size))(
        jax.random.split(jax.random.key(4), 8)
    )
    for order in orders:
        assert (run(order.reshape(4, 4)) > 3 * found).all()


def test_order_of_children_does_not_matter():
    order = jax.random.permutation(jax.random.key(5), T)
    place = jnp.argsort(order)  # token j of the old order is at place[j] of the new
    turned = [np.where(UNEVEN[0] < 0, -1, np.asarray(place)[UNEVEN[0]])[:, ::-1], *UNEVEN[1:]]
    y = attention(Q, K, V, UNEVEN)
    near(attention(Q[:, order], K[:, order], V[:, order], turned), y[:, order], 1e-5)


def test_children_move_with_their_places():
    """The first two children of every family exchanged, and the vectors of their places."""
    places = jax.random.normal(jax.random.key(6), (4, 2))
    other = np.array([1, 0, 2, 3])
    turned = [np.asarray(family)[:, other[: family.shape[1]]] for family in UNEVEN]
    moved, stayed = (weights_of(Q, K, turned, sibling_positions=p) for p in (places[other], places))
    for head in range(H):
        theta, _ = by_definition(Q[0, :, head], K[0, :, head], UNEVEN, places)
        near(moved[0, head], theta, 1e-5)
    assert np.abs(stayed - moved).max() > 0.05


def test_distances_of_normed_vectors_are_products():
    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    q, k = unit(Q), unit(K)
    near(attention(q, k, V, UNEVEN, score="distance"), attention(q, k, V, UNEVEN), 1e-5)
    far = ((Q[:, :, None] - K[:, None]) ** 2).sum(-1) / (2 * D**0.5)
    expected = jnp.einsum("btsh,bshe->bthe", jax.nn.softmax(-far, axis=2), V)
    one = [np.arange(T)[None]]
    near(attention(Q, K, V, one, score="distance"), expected, 1e-5)


def test_operations_grow_with_tokens_and_families():
    def run(length, width):
        x = jax.ShapeDtypeStruct((1, length, 1, 64), jnp.float32)
        return lambda x: tree.tree_attention(x, x, x, tree.balanced_tree(length, width)), x

    def count(length, width):
        return flops.count(*run(length, width))

    def xla(length, width):
        attention, x = run(length, width)
        analysis = jax.jit(attention).lower(x).cost_analysis()
        assert analysis is not None
        return analysis["flops"]

    assert 1.9 < count(512, 8) / count(256, 8) < 2.1
    of = {width: xla(512, width) for width in (8, 16, 32)}
    assert 1.9 < of[8] / xla(256, 8) < 2.1
    # A constant, and a part that grows with the family: 4 d operations a token and sibling.
    for narrow, wide in ((8, 16), (16, 32)):
        assert 1.0 < (of[wide] - of[narrow]) / (4 * 64 * 512 * (wide - narrow)) < 1.2
    flat = flops.count(
        lambda x: jattn.attend(x, x, x, implementation="reference"),
        jax.ShapeDtypeStruct((1, 512, 1, 64), jnp.float32),
    )
    assert count(512, 8) < 0.1 * flat


def test_learned_places():
    mixer = zoo.make("hierarchical_attention", dim=8, heads=H, branching=3, sibling_dim=2)
    params = mixer.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (B, T, 8))
    slope = jax.jit(jax.grad(lambda params: (mixer.apply(params, x) ** 2).sum()))(params)
    assert np.any(slope["sibling"])


def test_bad_trees_are_named(plain_checks):
    for call, message in (
        (lambda: tree.balanced_tree(9, (2, 2)), "branching: expected one root of 9 leaves, 3 are"),
        (lambda: tree.balanced_tree(9, 1), "branching: expected families of at least 2, got 1"),
        (lambda: tree.balanced_tree(0, 2), "length: expected at least 1, got 0"),
        (lambda: tree.tree_of_segments([[0, 2]]), "segments: expected 2 parents numbered from 0"),
        (lambda: tree.tree_of_segments([]), "segments: expected one level at least, got none"),
        (lambda: tree.tree_attention(Q, K, V, UNEVEN[:1]), "tree: expected levels [n, b] up to"),
        (
            lambda: tree.tree_attention(Q, K, V, UNEVEN, sibling_positions=jnp.ones((2, 1))),
            "sibling_positions: expected at least 4, got 2",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
