"""What is hidden gives nothing and gets nothing, whatever hides it and whatever it holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import attend, masks
from jattn.attention import scores

T, S, H = 130, 200, 2
INF, LOW = -np.inf, float(np.finfo(np.float32).min)


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def expected(query, key, value, bias, cap=None):
    """Softmax in float64; `bias` hides where it is -inf, before and after a cap."""
    q, k, v = (np.asarray(x, np.float64) for x in (query, key, value))
    score = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[3])
    bias = np.broadcast_to(bias, score.shape)
    hidden = bias == -np.inf
    # In float32, as a number that swallows all others is added there.
    score = np.where(hidden, 0, (score.astype(np.float32) + bias.astype(np.float32)))
    score = score.astype(np.float64)
    if cap is not None:
        score = cap * np.tanh(score / cap)
    score = np.where(hidden, -np.inf, score)
    top = score.max(-1, keepdims=True)
    weight = np.exp(score - np.where(np.isfinite(top), top, 0))
    total = weight.sum(-1, keepdims=True)
    weight /= np.where(total == 0, 1, total)
    return np.einsum("bhts,bshe->bthe", weight, v), weight


def additive(kind, low):
    bias = np.zeros((2, 1, T, S), np.float32)
    if kind == "first_tile":
        bias = np.zeros((2, 1, 1, S), np.float32)
        bias[..., :128] = low
    elif kind == "all_of_one_entry":
        bias = np.zeros((2, 1, 1, S), np.float32)
        bias[0] = low
    elif kind == "queries":
        bias = np.zeros((1, 1, T, 1), np.float32)
        bias[:, :, 100:] = low
    else:
        bias[0, :, :, 64:] = low
        bias[1, :, 7] = low
    return bias


@pytest.mark.parametrize("low", [INF, LOW, -1e30], ids=["inf", "lowest", "1e30"])
@pytest.mark.parametrize("kind", ["first_tile", "all_of_one_entry", "queries", "full"])
def test_additive_masks(kind, low, implementation):
    query, key, value, d_out = draw((2, T, H, 8), (2, S, H, 8), (2, S, H, 4), (2, T, H, 4))
    bias = additive(kind, low)
    want, weight = expected(query, key, value, bias)

    def loss(query, key, value):
        out = attend(query, key, value, bias=jnp.asarray(bias), implementation=implementation)
        return (out * d_out).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(query, key, value)
    np.testing.assert_allclose(out, want, atol=2e-6)
    # By hand: dv = P^T dout, ds = P (dout v - dout out).
    g, v = np.asarray(d_out, np.float64), np.asarray(value, np.float64)
    ds = np.einsum("bthe,bshe->bhts", g, v) - np.einsum("bthe,bthe->bht", g, want)[..., None]
    ds = weight * ds / np.sqrt(8)
    for got, wanted in zip(
        grads,
        (
            np.einsum("bhts,bshd->bthd", ds, key),
            np.einsum("bhts,bthd->bshd", ds, query),
            np.einsum("bhts,bthe->bshe", weight, g),
        ),
        strict=True,
    ):
        np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_hidden_by_a_modification_or_before_one(implementation):
    query, key, value = draw((1, T, H, 8), (1, S, H, 8), (1, S, H, 4))
    late = np.where(np.arange(S) >= 128, 0, -np.inf)
    low = np.where(np.arange(S) < 128, 0, -np.inf)
    bias = jnp.asarray(low[None, None, None], jnp.float32)

    @jax.jit
    def run(query, key, value):
        def by_modification(score, b, h, i, j):
            return jnp.where(j >= 128, score, -jnp.inf)

        options = {"implementation": implementation}
        first = attend(query, key, value, score_mod=by_modification, **options)
        second = attend(query, key, value, bias=bias, score_mod=scores.soft_cap(2.0), **options)
        return first, second

    first, second = run(query, key, value)
    np.testing.assert_allclose(first, expected(query, key, value, late)[0], atol=2e-6)
    np.testing.assert_allclose(second, expected(query, key, value, low, cap=2.0)[0], atol=2e-6)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_query_without_keys_may_hold_anything(implementation, bad):
    query, key, value, d_out = draw((1, T, H, 8), (1, S, H, 8), (1, S, H, 4), (1, T, H, 4))
    mask = masks.prefix(jnp.array([T - 3])).T & masks.causal()

    @jax.jit
    def run(query, d_out):
        def loss(query, key, value):
            out = attend(query, key, value, mask=mask, implementation=implementation)
            return out, out

        out, pull = jax.vjp(lambda *x: loss(*x)[0], query, key, value)
        return out, pull(d_out)

    hidden = jnp.arange(T)[:, None, None] >= T - 3
    got = run(jnp.where(hidden, bad, query), jnp.where(hidden, jnp.nan, d_out))
    want = run(jnp.where(hidden, 0, query), jnp.where(hidden, 0, d_out))
    assert all(np.isfinite(np.asarray(y)).all() for y in jax.tree.leaves(want))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), got, want)
    seen = run(query.at[0, 5, 0, 0].set(bad), d_out)[0]
    assert np.isnan(seen[0, 5, 0]).all()
    assert np.isfinite(np.asarray(seen[0, 5, 1])).all()
    assert np.isfinite(np.asarray(seen[0, :5])).all()


@pytest.mark.parametrize(
    ("t", "s"), [(1, 1), (5, 3), (130, 129)], ids=["one", "few", "beyond_a_tile"]
)
def test_padding_reaches_no_sum(t, s, implementation):
    """With scores that overflow without their maximum, a modification that has no derivative at
    0, and lengths that are no multiples of a tile: the same as the definition."""
    query, key, value = draw((1, t, 1, 8), (1, s, 1, 8), (1, s, 1, 4))
    query, key = jnp.abs(query) + 0.1, jnp.abs(key) + 0.1

    def run(name, query, key, value, slope):
        def steep(score, b, h, i, j):
            return 20 * jnp.sqrt(score) + slope * (i - j)

        out = attend(query, key, value, bias=100.0, score_mod=steep, implementation=name)
        return (out**2).sum()

    arguments = (query, key, value, jnp.float32(1.5))
    gradients = jax.jit(jax.grad(run, (1, 2, 3, 4)), static_argnums=0)
    for got, want in zip(
        gradients(implementation, *arguments), gradients("reference", *arguments), strict=True
    ):
        assert np.isfinite(np.asarray(want)).all()  # NaN would be equal to NaN
        np.testing.assert_allclose(got, want, atol=1e-4 * max(1, float(jnp.abs(want).max())))


@pytest.mark.parametrize("name", ["reference", "blockwise"])
def test_nan_is_found_where_it_is_and_infinity_is_not_when_it_is_meant(name):
    query, key, value = draw((1, T, H, 8), (1, S, H, 8), (1, S, H, 4))
    mask = masks.causal(-2)  # Rows without keys, and -inf among the scores.
    run = lambda query: attend(query, key, value, mask=mask, implementation=name).sum()
    with jax.debug_nans(True), jax.debug_infs(True):
        assert np.isfinite(float(run(query)))
        assert np.isfinite(np.asarray(jax.grad(run)(query))).all()
        with pytest.raises(FloatingPointError):
            run(query.at[0, 5].set(jnp.nan))
