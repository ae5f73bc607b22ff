"""The dictionary of the Dynamical Systems Framework: recurrences against parallel forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.recurrence import recur
from jattn.theory import dynamical_systems as dsf
from jattn.theory import quasi_lstm

B, T, H, N, E = 2, 9, 2, 3, 4


@pytest.fixture(scope="module")
def arrays():
    keys = jax.random.split(jax.random.key(0), 4)
    return (
        jax.random.normal(keys[0], (B, T, H, N)),
        jax.random.normal(keys[1], (B, T, H, N)),
        jax.random.normal(keys[2], (B, T, H, E)),
        jax.random.normal(keys[3], (B, T, H)),
    )


def mix(system, value):
    return jnp.einsum("bhij,bjhe->bihe", dsf.mixing_matrix(system), value)


def test_linear_attention_is_a_system_whose_rows_sum_to_one(arrays):
    query, key, value, _ = arrays
    expected = linear_attention(query, key, value, causal=True)
    system = dsf.linear_attention_system(jax.nn.elu(query) + 1, jax.nn.elu(key) + 1)
    np.testing.assert_allclose(system(value), expected, atol=1e-5)
    np.testing.assert_allclose(mix(system, value), expected, atol=1e-5)
    matrix = dsf.mixing_matrix(system)
    np.testing.assert_allclose(matrix.sum(-1), 1.0, atol=1e-5)
    assert not jnp.any(jnp.triu(matrix, 1))


@pytest.mark.parametrize("eta", sorted(dsf.ETAS))
def test_normalized_attention_is_a_system(arrays, eta):
    query, key, value, raw = arrays
    functions = {"exp": jnp.exp, "softplus": jax.nn.softplus, "sigmoid": jax.nn.sigmoid}
    scores = jnp.tril(jnp.einsum("bihn,bjhn->bhij", query, key))
    divided = jnp.einsum("bhij,bjhe->bihe", scores, value) / functions[eta](raw)[..., None]
    got = dsf.normalized_attention(query, key, value, raw, eta=eta)
    np.testing.assert_allclose(got, divided, atol=2e-5)
    system = dsf.attention_system(query, key, dsf.ETAS[eta](raw))
    # eta falls here and there: the recurrence then grows, and must still be right.
    assert float(system.decay.max()) > 0
    np.testing.assert_allclose(system(value), divided, atol=1e-4)
    assert float(jnp.abs(dsf.mixing_matrix(system).sum(-1) - 1).max()) > 0.1


def test_normalizer_scales_and_vanishes(arrays):
    query, key, value, raw = arrays
    plain = recur(query, key, value)
    unit = dsf.normalized_attention(query, key, value, jnp.zeros_like(raw))
    np.testing.assert_allclose(unit, plain, atol=1e-6)
    thrice = dsf.normalized_attention(query, key, value, raw + jnp.log(3.0))
    np.testing.assert_allclose(
        3 * thrice, dsf.normalized_attention(query, key, value, raw), rtol=1e-4, atol=1e-6
    )


def test_softmax_is_the_limit_of_taylor_features(arrays):
    query, key, value, _ = arrays
    query, key = 0.4 * query, 0.4 * key  # truncation works for small scores
    expected = jattn.attend(query, key, value, mask=jattn.masks.causal())
    errors = []
    for order in (2, 4, 6):
        features = [dsf.taylor_features(x * N**-0.25, order) for x in (query, key)]
        system = dsf.linear_attention_system(*features)
        errors.append(float(jnp.abs(system(value) - expected).max()))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-4
    assert dsf.taylor_features(query, 3).shape[-1] == 1 + N + N**2 + N**3


def test_selective_systems(arrays):
    query, key, value, raw = arrays
    one = jnp.ones((H, N))
    system = dsf.selective_system(raw, one, key, query)
    np.testing.assert_allclose(
        jnp.exp(system.decay[..., 0]), jax.nn.sigmoid(-raw), atol=1e-6
    )  # the reversed sigmoid
    rate = jnp.exp(jax.random.normal(jax.random.key(5), (H, N)))
    system = dsf.selective_system(raw, rate, key, query)
    state, delta = jnp.zeros((B, H, N, E)), jax.nn.softplus(raw)
    for t in range(T):
        step = delta[:, t, :, None]
        state = jnp.exp(-step * rate)[..., None] * state
        state += (step * key[:, t])[..., None] * value[:, t, :, None]
        expected = jnp.einsum("bhn,bhne->bhe", query[:, t], state)
        np.testing.assert_allclose(mix(system, value)[:, t], expected, atol=2e-5)
    # No decay: unnormalised linear attention.
    still = dsf.System(jnp.zeros_like(key), key, query)
    np.testing.assert_allclose(mix(still, value), recur(query, key, value), atol=1e-5)


def test_quasi_lstm_limits():
    dim, length = 3, 7
    params = quasi_lstm.init(jax.random.key(1), dim)
    width = 2 * dim
    # Gates wide open, the filter an identity: a cumulative sum.
    wide = jnp.full((3 * width,), 30.0)
    opened = params._replace(
        convolution=jnp.zeros((4, width)).at[-1].set(1.0),
        convolution_bias=jnp.zeros(width),
        gates=jnp.zeros_like(params.gates),
        gates_bias=wide,
    )
    u = jax.random.normal(jax.random.key(2), (2, length, dim))
    gate, x = jnp.split(u @ params.input, 2, axis=-1)
    expected = (jax.nn.gelu(gate, approximate=False) * jnp.cumsum(x, axis=1)) @ params.output
    np.testing.assert_allclose(quasi_lstm.apply(opened, u), expected, atol=1e-5)
    # Reversed with alpha = 0 (or below): the forget gate does not matter.
    integrator = opened._replace(alpha=jnp.asarray(-0.5))
    got = quasi_lstm.apply(integrator, u, reversed_gate=True)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    # Causal.
    moved = quasi_lstm.apply(params, u.at[:, 4].add(1.0)) - quasi_lstm.apply(params, u)
    assert not jnp.any(jnp.abs(moved[:, :4]) > 1e-6)
    assert jnp.all(jnp.abs(moved[:, 4:]).max(-1) > 1e-4)


def test_bad_input_is_one_clear_line(plain_checks, arrays):
    query, key, value, raw = arrays
    with pytest.raises(ValueError, match="eta: expected one of 'exp', 'sigmoid', 'softplus'"):
        dsf.normalized_attention(query, key, value, raw, eta="relu")  # type: ignore
    with pytest.raises(ValueError, match="log_eta: expected shape"):
        dsf.attention_system(query, key, raw[:, :3])
    with pytest.raises(ValueError, match="order: expected at least 0"):
        dsf.taylor_features(query, -1)
    with pytest.raises(ValueError, match=r"u: expected shape \[b=1, t=5, m=4\]"):
        quasi_lstm.apply(quasi_lstm.init(jax.random.key(0), 4), jnp.ones((1, 5, 3)))
