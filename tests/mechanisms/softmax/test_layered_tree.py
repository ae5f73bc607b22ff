"""A tree across layers of reversed attention: sums, parents and depths worked out by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms.softmax import layered_tree

# Two layers; the second sees tokens 0, 2 and 3 of 4. Rows receive, columns send.
FIRST = np.array(
    [[0.5, 0.1, 0.0, 0.3], [0.1, 0.6, 0.1, 0.0], [0.3, 0.3, 0.9, 0.3], [0.1, 0.0, 0.0, 0.4]]
)
SECOND = np.array([[0.2, 0.0, 0.4], [0.1, 0.5, 0.2], [0.7, 0.0, 0.3]])


def test_layers_are_summed_where_their_tokens_came_from():
    expected = FIRST.copy()
    for i, row in enumerate((0, 2, 3)):
        for j, column in enumerate((0, 2, 3)):
            expected[row, column] += SECOND[i, j]
    total = layered_tree.sum_over_layers(
        [jnp.asarray(FIRST)[None], jnp.asarray(SECOND)[None]],
        [jnp.arange(4)[None], jnp.array([[0, 2, 3]])],
        4,
    )
    np.testing.assert_allclose(total[0], expected, atol=1e-6)
    # From others they take 0.8, 0.2, 1.2 and 0.8: token 2 is the root, and of the equal tokens 0
    # and 3 the first counts as taking more. 0 sends 0.4 to 2; 3 sends 0.7 to 0 and 0.5 to 2; 1
    # sends 0.1 to 0, 0.3 to 2 and nothing to 3. What 0 sends to 3, 0.8, is against the order.
    np.testing.assert_array_equal(layered_tree.tree(total), [[2, 2, 2, 0]])
    np.testing.assert_array_equal(layered_tree.depths(layered_tree.tree(total)), [[1, 1, 0, 2]])


def test_any_dependencies_give_a_tree():
    found = layered_tree.tree(jax.random.uniform(jax.random.key(0), (20, 7, 7)))
    for parents in np.asarray(found):
        (root,) = np.flatnonzero(parents == np.arange(7))
        for token in range(7):
            for _ in range(7):
                token = parents[token]
            assert token == root
    depths = np.asarray(layered_tree.depths(found))
    assert (depths == 0).sum() == 20
    above = np.take_along_axis(depths, np.asarray(found), axis=1)
    np.testing.assert_array_equal(np.maximum(depths - 1, 0), above)


def test_what_a_token_sends_itself_has_no_part_in_it():
    taken = jax.random.uniform(jax.random.key(1), (3, 5, 5))
    with_own = taken + 9.0 * jnp.eye(5) * jnp.arange(5.0)
    np.testing.assert_array_equal(layered_tree.tree(taken), layered_tree.tree(with_own))


def test_order_of_tokens_does_not_matter():
    taken = jax.random.uniform(jax.random.key(2), (1, 6, 6))
    order = jnp.array([3, 1, 5, 0, 4, 2])
    parents = layered_tree.tree(taken)[0]
    moved = layered_tree.tree(taken[:, order][:, :, order])[0]
    np.testing.assert_array_equal(order[moved], parents[order])


def test_bad_input_is_named(plain_checks):
    one, index = jnp.ones((1, 3, 3)), jnp.arange(3)[None]
    for call, message in (
        (lambda: layered_tree.sum_over_layers([], [], 3), "indices: expected those of each of 1"),
        (lambda: layered_tree.sum_over_layers([one], [], 3), "got 0 for 1"),
        (
            lambda: layered_tree.sum_over_layers([one], [index[:, 1:]], 3),
            "indices: expected shape [b=1, n=3], got [1, 2]",
        ),
        (lambda: layered_tree.sum_over_layers([one], [index], 0), "count: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
