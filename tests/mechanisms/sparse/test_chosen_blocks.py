"""Landmarks, clusters, and blocks that are chosen: their limits and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import attend, masks
from jattn.mechanisms.sparse import (
    landmark_attention,
    rectified_attention,
    routing_attention,
    sparsed_attention,
    sparsifiner,
)
from jattn.mechanisms.sparse.tile_scores import tile_mean_probabilities, top_count, top_mass

rng = np.random.default_rng(0)
normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
Q, K, V = normal(2, 16, 2, 4), normal(2, 16, 2, 4), normal(2, 16, 2, 4)
close = lambda a, b, atol=1e-5: np.testing.assert_allclose(a, b, atol=atol)


def marks(*places):
    return jnp.zeros((2, 16), bool).at[:, jnp.array(places, int)].set(True)


landmarked = jax.jit(landmark_attention.landmark_attention)


def test_without_landmarks_it_is_causal_attention():
    causal = attend(Q, K, V, mask=masks.causal())
    close(landmarked(Q, K, V, marks()), causal)
    # A landmark at the end stands for nobody yet.
    close(landmarked(Q, K, V, marks(15))[:, :15], causal[:, :15])


def test_rows_of_landmark_weights_sum_to_one_and_landmarks_have_none():
    is_landmark = marks(4, 9, 12)
    weights = landmark_attention.landmark_weights(Q, K, is_landmark)
    close(weights.sum(-1), 1)
    assert (weights[..., jnp.array([4, 9, 12])] == 0).all()
    assert (np.triu(np.asarray(weights[0, 0]), 1) == 0).all()
    close(jnp.einsum("bhts,bshe->bthe", weights, V), landmarked(Q, K, V, is_landmark))


def test_a_landmark_that_scores_as_its_block_changes_nothing():
    """One query, whose landmark's score is the log-sum-exp of its block's."""
    is_landmark = marks(4)
    scores = 0.5 * jnp.einsum("bd,bsd->bs", Q[:, 7, 0], K[:, :, 0])
    total = jax.nn.logsumexp(scores[:, :4], axis=-1)
    along = Q[:, 7, 0] / (Q[:, 7, 0] ** 2).sum(-1, keepdims=True)
    key = K.at[:, 4, 0].set(2 * total[:, None] * along)
    ordinary = masks.causal() & ~masks.from_array(is_landmark[:, None, None])
    expected = attend(Q, key, V, mask=ordinary)
    close(landmarked(Q, key, V, is_landmark)[:, 7, 0], expected[:, 7, 0])


def test_fetching_all_blocks_is_all():
    is_landmark = marks(3, 7, 11)
    every = landmark_attention.select_blocks(Q, K, is_landmark, 16)
    close(landmarked(Q, K, V, is_landmark, retrieved=every), landmarked(Q, K, V, is_landmark))
    one = landmark_attention.select_blocks(Q, K, is_landmark, 1)
    assert (one.sum(-1)[..., 4:] == 1).all()
    assert not one[..., :4, :].any()


def centroids(count):
    return routing_attention.unit(normal(2, count, 4))


routed = jax.jit(
    routing_attention.routing_attention, static_argnames=("window", "causal", "shared")
)


def test_one_cluster_of_all_is_attention():
    close(routed(Q, K, V, centroids(1), window=16), attend(Q, K, V) / (1 + 1e-5))


def test_clusters_have_no_order_and_no_length():
    mu = centroids(3)
    close(routed(Q, K, V, mu[:, ::-1], window=6), routed(Q, K, V, mu, window=6))
    before = routing_attention.members(Q, K, mu, window=6)
    after = routing_attention.members(3 * Q, K, mu, window=6)
    np.testing.assert_array_equal(before[0], after[0])


def test_centroids_move_as_far_as_they_should():
    mu = centroids(3)
    still = routing_attention.updated_centroids(mu, Q, decay=1.0)
    np.testing.assert_array_equal(still, mu)
    fresh = np.asarray(routing_attention.updated_centroids(mu, Q, decay=0.0))
    close(np.linalg.norm(fresh, axis=-1), 1)
    unit = np.asarray(routing_attention.unit(Q), np.float64)
    for head in range(2):
        vectors = unit[:, :, head].reshape(-1, 4)
        nearest = (vectors @ np.asarray(mu[head]).T).argmax(1)
        for cluster in range(3):
            mean = vectors[nearest == cluster].mean(0)
            close(fresh[head, cluster], mean / np.linalg.norm(mean))


def test_clusters_do_not_look_ahead():
    mu = centroids(3)
    one, two = (
        routing_attention.clustered_attention(Q, K, value, mu, mask=masks.causal())
        for value in (V, V.at[:, 9:].add(1.0))
    )
    np.testing.assert_array_equal(one[:, :9], two[:, :9])


def test_policies():
    rows = jnp.array([[0.5, 0.3, 0.15, 0.05]])
    assert top_mass(rows, 0.8).tolist() == [[True, True, True, False]]
    assert top_mass(rows, 0.0, least=3).sum() == 3
    assert top_mass(rows, 1.0).all()
    assert top_count(rows, 2).tolist() == [[True, True, False, False]]
    means = tile_mean_probabilities(Q, K, 4)
    close(means.sum(-1), 4 / 16)


rectified = jax.jit(
    rectified_attention.rectified_attention, static_argnames=("block", "mass", "least", "text")
)


def test_rectified_weights_sum_to_one():
    ones = jnp.ones_like(V)
    close(rectified(Q, K, ones, block=4, mass=0.4), 1)
    close(rectified(Q, K, ones, block=4, mass=0.4, text=4), 1)


def test_rectified_limits():
    close(rectified(Q, K, V, block=4, mass=0.0, least=4), attend(Q, K, V))
    constant = lambda x: jnp.repeat(x[:, ::4], 4, axis=1)
    given = constant(Q), constant(K), V
    close(rectified(*given, block=4, mass=0.3), attend(*given))
    close(rectified(Q, K, V, block=1, mass=0.3), attend(Q, K, V))


def test_what_is_given_back_helps():
    """The sheet's clustered data: a mean of each block, and noise."""
    key = jax.random.key(3)

    def error(key):
        means, noise = jax.random.split(key)
        draw = lambda k: jnp.repeat(jax.random.normal(k, (1, 8, 1, 8)), 8, axis=1)
        q, k, v = (draw(k) for k in jax.random.split(means, 3))
        noisy = [
            x + 0.3 * jax.random.normal(n, x.shape)
            for x, n in zip((q, k, v), jax.random.split(noise, 3), strict=True)
        ]
        dense = attend(*noisy)
        chosen = rectified_attention.select(*noisy[:2], block=8, mass=0.5, least=2)
        plain = attend(*noisy, mask=masks.blocks(chosen.critical, 8, 8))
        ours = rectified_attention.rectified_attention(*noisy, block=8, mass=0.5, least=2)
        norm = lambda x: jnp.sqrt((x**2).mean() / (dense**2).mean())
        return norm(ours - dense), norm(plain - dense)

    ours, plain = jax.jit(jax.vmap(error))(jax.random.split(key, 20))
    assert ours.mean() < 0.75 * plain.mean()


def test_sparsed_limits_and_counts():
    every = sparsed_attention.choose_blocks(Q, K, block=4, share=1.0, generated=8)
    assert every.all()
    few = sparsed_attention.choose_blocks(Q, K, block=2, share=0.2, generated=6)
    assert (few[..., 5:].sum(-1) == 1).all()
    assert (few.sum(-1) <= 3).all()
    out = sparsed_attention.sparsed_attention(Q, K, V, few, block=2)
    seen = jnp.repeat(jnp.repeat(few, 2, axis=2), 2, axis=3)
    close(out, attend(Q, K, V, mask=seen, implementation="reference"))
    assert sparsed_attention.phase(20, 20, 1.0) == "dense"


def test_sparsifiner_limits():
    params = sparsifiner.init(jax.random.key(0), tokens=16, head_dim=4, reduce_tokens=4)
    found = sparsifiner.predict(params, Q, K, keep=0.3, coefficients=2, basis_threshold=0.0)
    assert (found.mask[:, :, 1:].sum(-1) == 5).all()
    assert found.mask[:, :, 0].all()
    assert (found.approximate >= 0).all()
    every = sparsifiner.predict(params, Q, K, keep=1.0)
    close(sparsifiner.sparsifiner_attention(Q, K, V, every.mask), attend(Q, K, V))
    teacher = jnp.full((2, 2, 16, 16), 1 / 16)
    loss = lambda params: sparsifiner.connectivity_loss(
        params, sparsifiner.predict(params, Q, K), teacher
    )
    gradient = jax.grad(loss)(params)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["expand"]))
    # No gradient passes through the choice.
    through = jax.grad(
        lambda p: sparsifiner.sparsifiner_attention(
            Q, K, V, sparsifiner.predict(p, Q, K).mask
        ).sum()
    )(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(through))


@pytest.mark.parametrize("causal", [False, True])
def test_tables_of_blocks_and_segments_combine(causal):
    table = jnp.asarray(rng.random((2, 2, 4, 4)) > 0.5)
    mask = masks.blocks(table, 4, 4)
    seen = jnp.repeat(jnp.repeat(table, 4, axis=2), 4, axis=3)
    if causal:
        mask, seen = mask & masks.causal(), seen & np.tril(np.ones((16, 16), bool))
    for implementation in ("reference", "blockwise"):
        out = attend(Q, K, V, mask=mask, implementation=implementation)
        close(out, attend(Q, K, V, mask=seen, implementation="reference"))
    ids = jnp.asarray(rng.integers(0, 3, (2, 16)))
    allow = jnp.asarray(rng.random((3, 3)) > 0.3)
    pairs = allow[ids[:, :, None], ids[:, None]][:, None]
    out = attend(Q, K, V, mask=~masks.segment_table(allow, ids))
    close(out, attend(Q, K, V, mask=~pairs, implementation="reference"))
