"""Local linear attention and Parallax: the fits they are, their limits, both forms, memory."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.attention import attend, masks
from jattn.mechanisms import zoo
from jattn.mechanisms.linear.local_linear_attention import local_linear_attention as core
from jattn.mechanisms.linear.local_linear_attention import local_probe
from jattn.mechanisms.linear.parallax import covariance_attention

B, T, H, G, D, E = 2, 7, 4, 2, 3, 5
static = ("solver", "iterations", "block_size", "return_weights")
lla = jax.jit(core, static_argnames=static)
probe_of = jax.jit(local_probe, static_argnames=static[:2])
parallax = jax.jit(covariance_attention)
softmax = jax.jit(attend)
CAUSAL = masks.causal()


def draws(length=T):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape))
    return draw(B, length, H, D), draw(B, length, G, D), draw(B, length, G, E)


@pytest.fixture
def case():
    with jax.enable_x64(False):
        return draws()


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def fits(query, key, value, ridge, scale):
    """The weighted least squares of the definition, causal, one query after the other."""
    query, key, value = (np.asarray(x, float) for x in (query, key, value))
    out = np.zeros((*query.shape[:3], value.shape[-1]))
    for b, i, h in np.ndindex(query.shape[:3]):
        k, v = key[b, : i + 1, h * G // H], value[b, : i + 1, h * G // H]
        weights = np.exp(scale * (k @ query[b, i, h]))
        inputs = np.concatenate([np.ones((i + 1, 1)), k - query[b, i, h]], 1)
        penalty = ridge[i] * weights.sum() * np.diag([0.0] + [1.0] * query.shape[-1])
        gram = inputs.T @ (weights[:, None] * inputs) + penalty
        out[b, i, h] = np.linalg.solve(gram, inputs.T @ (weights[:, None] * v))[0]
    return out


@pytest.mark.parametrize("solver", ["cg", "exact"])
def test_it_is_the_intercept_of_a_weighted_fit(x64, solver):
    query, key, value = draws()
    for ridge in (jnp.full(T, 0.1), jnp.linspace(0.01, 3.0, T)):
        out = lla(query, key, value, ridge=ridge, scale=0.7, mask=CAUSAL, solver=solver)
        close(out, fits(query, key, value, ridge, 0.7), 1e-9)


def test_rows_sum_to_one_signs_are_free_and_the_first_token_is_its_value(case):
    query, key, value = case
    out, weights = lla(query, key, value, mask=CAUSAL, return_weights=True)
    close(weights.sum(-1), 1.0)
    assert (weights < -0.01).any()
    close(jnp.einsum("bhts,bshe->bthe", weights, jnp.repeat(value, H // G, 2)), out)
    close(lla(query, key, value + 3, mask=CAUSAL), out + 3)
    np.testing.assert_array_equal(out[:, 0], jnp.repeat(value[:, 0], H // G, 1))
    nothing = lla(query, key, value, mask=jnp.zeros((T, T), bool))
    np.testing.assert_array_equal(nothing, 0 * out)


def test_much_ridge_is_softmax(case):
    expected = softmax(*case, mask=CAUSAL)
    gap = lambda ridge: np.abs(lla(*case, ridge=ridge, mask=CAUSAL) - expected).max()
    assert 1e-5 < gap(1e4) < 2e-3
    assert gap(1e2) / gap(1e4) == pytest.approx(100, rel=0.1)


def test_values_affine_in_the_keys_are_given_back(x64):
    query, key, _ = draws()
    slope, constant = np.random.default_rng(1).standard_normal((2, D, D))
    out = lla(query, key, key @ slope + constant[0], ridge=1e-12, mask=CAUSAL, solver="exact")
    # From the token on with which there are d + 1 keys.
    close(out[:, D:], (query @ slope + constant[0])[:, D:], 1e-7)


def test_without_scores_it_is_least_squares_with_an_intercept(x64):
    query, key, value = draws()
    out = lla(query, key, value, ridge=1e-12, scale=0.0, solver="exact")
    for b, h in np.ndindex(B, H):
        inputs = lambda x: np.concatenate([np.ones((T, 1)), x], 1)
        fit = np.linalg.lstsq(inputs(key[b, :, h * G // H]), value[b, :, h * G // H])[0]
        close(out[b, :, h], inputs(query[b, :, h]) @ fit, 1e-7)


def test_rotating_queries_and_keys_changes_nothing(case):
    query, key, value = case
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((D, D)))[0].astype("float32")
    close(lla(query @ turn, key @ turn, value), lla(*case))


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_the_authors_divisor_is_positive_and_their_form_agrees(x64, ridge):
    """Centred at the query: rho = (Sigma + ridge omega I)^-1 mu, over omega - mu.rho."""
    query, key, value = draws()
    out, signed = lla(query, key, value, ridge=ridge, mask=CAUSAL, return_weights=True)
    key, value = (jnp.repeat(x, H // G, 2) for x in (key, value))

    @functools.partial(jnp.vectorize, signature="(t,d),(s,d),(s,e)->(t,e),(t,s),(t)")
    def source(q, k, v):
        weights = jnp.tril(jnp.exp(q @ k.T * D**-0.5))
        gaps = k[None] - q[:, None]
        omega, mu = weights.sum(1), jnp.einsum("ts,tsd->td", weights, gaps)
        sigma = jnp.einsum("ts,tsd,tsn->tdn", weights, gaps, gaps)
        sigma += ridge * omega[:, None, None] * jnp.eye(D)
        rho = jnp.linalg.solve(sigma, mu[..., None])[..., 0]
        divisor = omega - (mu * rho).sum(-1)
        weights *= (1 - jnp.einsum("td,tsd->ts", rho, gaps)) / divisor[:, None]
        return weights @ v, weights, divisor / omega

    expected, weights, divisor = source(*(jnp.swapaxes(x, 1, 2) for x in (query, key, value)))
    assert (divisor > 0).all()
    close(out, jnp.swapaxes(expected, 1, 2), 1e-10)
    close(signed, weights, 1e-10)


@pytest.mark.parametrize("ridge", [0.01, 10.0])
def test_conjugate_gradients_are_the_direct_solution(case, ridge):
    query, key, _ = case
    chosen = {"ridge": ridge, "mask": CAUSAL}
    direct = probe_of(query, key, solver="exact", **chosen)
    close(probe_of(query, key, **chosen) / jnp.abs(direct).max(), direct / jnp.abs(direct).max())
    few = probe_of(query, key, iterations=1, **chosen)
    assert np.abs(few - direct).max() > 1e-3


def test_parallax_with_its_probe_is_local_linear_attention(case):
    query, key, value = case
    probe = probe_of(query, key, mask=CAUSAL)
    close(parallax(query, probe, key, value, mask=CAUSAL), lla(*case, mask=CAUSAL))


def test_parallax_is_softmax_less_its_derivative_along_the_probe(case):
    query, key, value = case
    probe = jnp.roll(query, 1, 1)
    read = lambda q: attend(q, key, value, mask=CAUSAL, scale=0.5)
    here, along = jax.jit(lambda: jax.jvp(read, (query,), (2 * probe,)))()
    close(parallax(query, probe, key, value, mask=CAUSAL, scale=0.5), here - along)
    close(parallax(query, 0 * probe, key, value, mask=CAUSAL, scale=0.5), here)
    same = jnp.broadcast_to(key[:, :1], key.shape)
    close(parallax(query, probe, same, value), softmax(query, same, value))


def test_blocks_of_queries_change_nothing(case):
    ridge, mask = jnp.linspace(0.1, 1.0, T), CAUSAL & masks.prefix(jnp.array([5, 6]))

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(size, *arrays):
        loss = lambda *a: (core(*a, ridge=ridge, mask=mask, block_size=size) ** 2).sum()
        return jax.value_and_grad(loss, (0, 1, 2))(*arrays)

    for a, b in zip(*(jax.tree.leaves(gradients(n, *case)) for n in (3, None)), strict=True):
        close(a, b, 1e-4)


def test_memory_grows_with_the_length_not_its_square():
    def temporaries(length):
        shapes = [jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)] * 3

        def loss(*arrays):
            return core(*arrays, mask=CAUSAL, iterations=4, block_size=32).sum()

        compiled: Any = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(1024) <= 2.2 * temporaries(512)


def test_options_and_errors(plain_checks, case):
    x = jnp.ones((1, 4, 8))
    for name, options in (
        ("local_linear_attention", {"rotary": True, "ridge": 1.0, "solver": "exact"}),
        ("parallax", {"window": 2}),
    ):
        mixer = zoo.make(name, dim=8, heads=2, causal=True, kv_heads=1, **options)
        params = mixer.init(jax.random.key(0))
        assert jax.eval_shape(mixer.apply, params, x).shape == x.shape
    query, key, value = case
    for message, call in {
        "solver: expected one of 'cg', 'exact', got 'lu'": lambda: core(*case, solver="lu"),
        r"ridge: expected a number or \[t=7\], got \[6\]": lambda: core(*case, ridge=jnp.ones(6)),
        "key: expected a number of heads that divides 4, got 3": lambda: core(
            query, query[:, :, :3], query[:, :, :3]
        ),
        "probe: expected shape": lambda: covariance_attention(query, key, key, value),
        "ridge: expected a positive number, got 0": lambda: zoo.make(
            "local_linear_attention", dim=8, heads=2, ridge=0.0
        ),
        "iterations: expected at least 1, got 0": lambda: zoo.make(
            "local_linear_attention", dim=8, heads=2, iterations=0
        ),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
