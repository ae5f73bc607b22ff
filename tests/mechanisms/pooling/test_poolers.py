"""Poolers: their limits, what order does to them, and what their statistics are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.pooling.efficient_probing import efficient_probing
from jattn.mechanisms.pooling.multiple_instance_pooling import multiple_instance_pooling
from jattn.mechanisms.pooling.simpool import simpool

B, N, M = 2, 6, 8
X = jnp.asarray(np.random.default_rng(0).standard_normal((B, N, M)), jnp.float32)
SOFT = ("efficient_probing", "multiple_instance_pooling", "simpool", "aim_pooling", "coca_pooling")
SOFT += ("cross_attention_pooling", "acmil", "brain_encoder")


@functools.cache
def made(name, **options):
    pool = zoo.make(name, dim=M, **options)
    rng = np.random.default_rng(5)
    shaken = lambda p: np.asarray(p) + 0.3 * rng.standard_normal(p.shape).astype(np.float32)
    params = jax.tree.map(shaken, jax.jit(pool.init)(jax.random.key(0)))
    if "statistics" in params:
        params["statistics"]["variance"] = np.ones_like(params["statistics"]["variance"])
    return pool, jax.tree.map(jnp.asarray, params), jax.jit(pool.apply)


def close(got, expected, tolerance=2e-5):
    np.testing.assert_allclose(got, expected, atol=tolerance)


@pytest.mark.parametrize("name", SOFT)
def test_duplicates_change_nothing(name):
    _, params, apply = made(name)
    close(apply(params, jnp.repeat(X, 2, axis=1)), apply(params, X))


def test_one_class_token_counts_among_the_others():
    """CaiT's and CLIP's extra token has less weight among more: not invariant to duplicates."""
    _, params, apply = made("class_attention", scale=1.0)
    assert np.abs(apply(params, jnp.repeat(X, 2, axis=1)) - apply(params, X)).max() > 1e-4
    _, params, apply = made("clip_pooling")  # whose extra token is their mean: few notice
    assert apply(params, X).shape == (B, 1, M)


def test_zero_queries_are_the_mean():
    _, params, apply = made("efficient_probing")
    close(apply(params | {"queries": 0 * params["queries"]}, X)[:, 0], X.mean(1) @ params["value"])
    _, params, apply = made("multiple_instance_pooling")
    flat = [*params["layers"][:-1], jax.tree.map(jnp.zeros_like, params["layers"][-1])]
    close(apply({"layers": flat}, X)[:, 0], X.mean(1))
    _, params, apply = made("simpool")
    x = X - X.mean(-1, keepdims=True)
    normed = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    normed = normed * params["norm"]["scale"] + params["norm"]["shift"]
    close(apply(params | {"query": 0 * params["query"]}, X)[:, 0], normed.mean(1))


def test_a_value_map_behind_the_sum_is_the_same():
    """And for one token, x W itself; of fewer outputs, too."""
    for reduction in (1, 2):
        _, params, apply = made("efficient_probing", queries=4, reduction=reduction)
        y = efficient_probing(params, X) if reduction > 1 else apply(params, X)
        weights = jax.nn.softmax(jnp.einsum("qm,bnm->bqn", params["queries"], X) * M**-0.5)
        values = (X @ params["value"]).reshape(B, N, 4, -1)
        close(y[:, 0], jnp.einsum("bqn,bnqe->bqe", weights, values).reshape(B, -1))
        close(efficient_probing(params, X[:, :1])[:, 0], X[:, 0] @ params["value"])


def test_one_head_a_query_of_the_engine():
    """Efficient probing is attention of M heads with one head of keys, each head as wide as x."""
    import jattn

    _, params, apply = made("efficient_probing", queries=4)
    query = jnp.broadcast_to(params["queries"], (B, 1, 4, M))
    value = (X @ params["value"]).reshape(B, N, 4, M // 4)
    y = jattn.attend(query, X[:, :, None], value)
    close(apply(params, X), y.reshape(B, 1, M))


def test_weights_that_are_not_normalised():
    """DOLG: a larger bias makes outputs longer; a shift of scores changes no softmax."""
    _, params, apply = made("dolg_pooling")
    shift = lambda p, c: p | {"score": p["score"] | {"bias": p["score"]["bias"] + c}}
    y, longer = apply(params, X), apply(shift(params, 4.0), X)
    assert (np.linalg.norm(longer, axis=-1) > 1.5 * np.linalg.norm(y, axis=-1)).all()
    layers = [{"weight": params["score"]["weight"], "bias": jnp.array([c])} for c in (0.0, 4.0)]
    one, other = (multiple_instance_pooling({"layers": [layer]}, X) for layer in layers)
    close(one, other)


def test_other_queries_do_not_change_the_first():
    _, params, apply = made("coca_pooling", queries=3)
    more = params | {"queries": params["queries"].at[1:, 0].add(1.0)}
    y, moved = apply(params, X), apply(more, X)
    close(y[:, 0], moved[:, 0])
    assert np.abs(y[:, 1:] - moved[:, 1:]).min(-1).max() > 1e-5


def test_generalised_mean():
    """Exponent 1 is the plain sum, a large one the maximum of what is looked at."""
    _, params, _ = made("simpool")
    close(simpool(params, X, gamma=1.0), simpool(params, X) - _least(params), 1e-4)
    with pytest.raises(ValueError, match=r"gamma: expected a positive number, got -1\.0"):
        zoo.make("simpool", dim=M, gamma=-1.0)


def _least(params):
    from jattn.mechanisms.layers.affine import norm

    return norm(params["norm"], X).min((1, 2))[:, None, None] - 1e-6


def test_positions_give_tokens_an_order():
    _, params, apply = made("clip_pooling", tokens=N)
    assert np.abs(apply(params, X[:, ::-1]) - apply(params, X)).max() > 1e-3
    with pytest.raises(ValueError, match="x: expected at most tokens=6, got 7"):
        made("clip_pooling", tokens=N)[0].apply(params, jnp.ones((1, 7, M)))


def test_a_gate_on_a_grid():
    """Taps along rows alone are those of a line, where the grid has one row."""
    _, params, line = made("cbam_pooling", width=3)
    taps = jnp.zeros((3, 3, 2, 1)).at[1].set(params["taps"])
    close(
        made("cbam_pooling", width=3, grid=(1, N))[2](params | {"taps": taps}, X), line(params, X)
    )
    with pytest.raises(ValueError, match="x: expected 2 x 2 tokens, got 6"):
        made("cbam_pooling", width=3, grid=(2, 2))[0].apply(params | {"taps": taps}, X)


def test_training_takes_the_batch():
    """Tokens that are padding are none of it."""
    pool, params, apply = made("aim_pooling", heads=2)
    real = jnp.arange(N) < jnp.array([[N], [2]])
    y, after = jax.jit(pool.train)(params, jnp.where(real[..., None], X, jnp.nan), mask=real)
    seen = np.concatenate([X[0], X[1, :2]])
    exact = {"mean": jnp.asarray(seen.mean(0)), "variance": jnp.asarray(seen.var(0))}
    close(
        y, apply(params | {"statistics": exact}, jnp.where(real[..., None], X, 0), mask=real), 1e-4
    )
    close(after["mean"], 0.9 * params["statistics"]["mean"] + 0.1 * seen.mean(0))
    assert made("simpool")[0].train is None


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("efficient_probing", dict(queries=3), "queries: expected a divisor of dim / reduction=8"),
        ("efficient_probing", dict(reduction=3), "reduction: expected a divisor of dim=8, got 3"),
        ("abmilp", dict(attention="all"), "attention: expected one of 'none', 'map', 'both'"),
        ("cross_attention_pooling", dict(form="mae"), "form: expected one of 'vjepa', 'cae', "),
        ("brain_encoder", dict(areas=0), "areas: expected at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(plain_checks, name, options, said):
    with pytest.raises(ValueError, match=said):
        zoo.make(name, dim=M, **options)
