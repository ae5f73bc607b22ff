"""Areas of a brain and voxels: routing, its factorised limit, and weights from context."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jattn.mechanisms import zoo
from jattn.mechanisms.pooling import brain_encoder as areas
from jattn.mechanisms.pooling import in_context_weights as voxel

N, M, K = 6, 8, 3
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((2, N, M)), jnp.float32)
P = areas.grid_positions((2, 3), M)
PARAMS = jax.jit(zoo.make("brain_encoder", dim=M, areas=K, hidden=5).init)(jax.random.key(0))
TOKENS = jax.jit(lambda params, x, p: areas.brain_encoder(params, x, positions=p))


def close(got, expected, tolerance=2e-5):
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_places_go_with_their_tokens():
    order = RNG.permutation(N)
    close(TOKENS(PARAMS, X[:, order], P[order]), TOKENS(PARAMS, X, P))
    assert np.abs(TOKENS(PARAMS, X[:, order], P) - TOKENS(PARAMS, X, P)).max() > 1e-3


def test_areas_do_not_see_each_other():
    moved = PARAMS | {"queries": PARAMS["queries"].at[1].add(1.0)}
    gap = np.abs(TOKENS(moved, X, P) - TOKENS(PARAMS, X, P)).max((0, 2))
    assert gap[1] > 1e-4
    assert gap[[0, 2]].max() == 0


def test_without_keys_it_is_the_uniform_factorised_model():
    keys = jax.tree.map(jnp.zeros_like, PARAMS["key"])
    weights = areas.routing(PARAMS | {"key": keys}, X, positions=P)
    close(weights, 1 / N)
    level = areas.spatial_map_readout(X, jnp.zeros((K, N)))
    close(level, jnp.broadcast_to(X.mean(1)[:, None], level.shape))
    close(areas.routing(PARAMS, X, positions=P).sum(-1), 1)


def test_vertices_read_their_own_area():
    tokens = TOKENS(PARAMS, X, P)
    weight, bias = jnp.asarray(RNG.standard_normal((M, 4)), jnp.float32), jnp.arange(4.0)
    all_of_them = areas.vertex_predictions(tokens, weight, bias)
    member = jnp.eye(K, dtype=bool)[jnp.array([0, 2, 2, 1])]
    expected = jnp.stack([tokens[:, k] @ weight[:, v] for v, k in enumerate((0, 2, 2, 1))], 1)
    close(areas.of_own_area(all_of_them, member), expected + bias)


@functools.cache
def weights_of(log_length, registers=2):
    pool = zoo.make("braincorl", dim=M, width=8, depth=1, hidden=6, registers=registers)
    params = jax.jit(pool.init)(jax.random.key(1))
    run = lambda params, x: voxel.in_context_weights(params, x, log_length=log_length)
    return params, jax.jit(run)


def test_context_has_no_order():
    params, run = weights_of(True)
    close(run(params, X[:, ::-1]), run(params, X))


def test_length_counts_through_its_logarithm_alone():
    """A context twice over is another one only for ln(T), or by the registers' share of it."""
    twice = jnp.repeat(X, 2, axis=1)
    params, run = weights_of(True)
    assert np.abs(run(params, twice) - run(params, X)).max() > 1e-5
    block = weights_of(False)[0]["blocks"][0]
    x = jnp.asarray(RNG.standard_normal((1, 5, 8)), jnp.float32)
    plain = lambda x: voxel.log_length_block(block, x, heads=2, log_length=False)
    close(plain(jnp.repeat(x, 2, axis=1))[:, ::2], plain(x))


def test_log_length_is_a_scale_where_queries_have_no_bias():
    import jattn
    from jattn.mechanisms.layers.affine import affine, norm
    from jattn.mechanisms.layers.heads import merge_heads, split_heads

    block = dict(weights_of(True)[0]["blocks"][0])
    block["query"] = {"weight": block["query"]["weight"]}
    x = jnp.asarray(RNG.standard_normal((1, 7, 8)), jnp.float32)
    seen = norm(block["norm"], x, eps=1e-5)
    maps = [split_heads(affine(block[of], seen), 2) for of in ("query", "key", "value")]
    read = merge_heads(jattn.attend(*maps, scale=np.log(7) / 2.0))
    y = x + affine(block["output"], read)
    fed = norm(block["mlp_norm"], y, eps=1e-5)
    y = y + affine(
        block["down"], jax.nn.silu(affine(block["gate"], fed)) * affine(block["up"], fed)
    )
    close(voxel.log_length_block(block, x, heads=2), y)


def test_predictions_are_affine_in_the_image():
    params, run = weights_of(True)
    w = run(params, X)[:, 0]
    a, b = jnp.asarray(RNG.standard_normal((2, 2, 3, M - 1)), jnp.float32)
    f = lambda e: voxel.linear_predictions(w, e)
    close(f(0.3 * a + 0.7 * b), 0.3 * f(a) + 0.7 * f(b))
