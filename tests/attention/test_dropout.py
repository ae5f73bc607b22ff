"""Dropout of weights: the same on every backend, forward and backward, at the rate asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import attend, masks

T, S, RATE = 130, 200, 0.3


def arrays():
    rng = np.random.default_rng(0)
    shapes = ((2, T, 2, 8), (2, S, 1, 8), (2, S, 1, 4), (2, T, 2, 4))
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def test_dropped_weights_are_those_of_the_definition_with_their_gradients(implementation):
    query, key, value, d_out = arrays()
    bias = jnp.zeros((1, 1, T, S))

    def run(name, query, key, value, bias):
        out = attend(
            query, key, value, bias=bias, mask=masks.causal(), dropout_rate=RATE,
            dropout_key=jax.random.key(3), implementation=name,
        )  # fmt: skip
        return (out * d_out).sum(), out

    gradients = jax.jit(jax.value_and_grad(run, (1, 2, 3, 4), has_aux=True), static_argnums=0)
    got = gradients(implementation, query, key, value, bias)
    want = gradients("reference", query, key, value, bias)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5), got, want)


def test_the_definition_drops_divided_weights():
    query, key, value, _ = arrays()
    plain = attend(query, key, value, return_weights=True)[1]
    out, dropped = attend(
        query, key, value, dropout_rate=RATE, dropout_key=jax.random.key(3), return_weights=True
    )
    factor = np.asarray(dropped) / np.asarray(plain)
    kept = factor > 0
    np.testing.assert_allclose(factor[kept], 1 / (1 - RATE), rtol=1e-5)
    # 104,000 draws: three standard deviations are 0.0043. Neighbours and heads are independent.
    assert abs(kept.mean() - (1 - RATE)) < 0.0043
    centred = kept - kept.mean()
    for other in (centred[..., 1:, :], centred[..., 1:], centred[:, 1:], centred[1:]):
        own = centred[tuple(slice(0, n) for n in other.shape)]
        assert abs((own * other).mean() / centred.var()) < 4 / np.sqrt(other.size)
    weights = np.asarray(dropped, np.float64)
    want = np.einsum("bhts,bse->bthe", weights, np.asarray(value)[:, :, 0])
    np.testing.assert_allclose(out, want, atol=2e-6)
    again = attend(query, key, value, dropout_rate=RATE, dropout_key=jax.random.key(4))
    assert np.abs(np.asarray(again - out)).max() > 0.1
    np.testing.assert_array_equal(
        attend(query, key, value), attend(query, key, value, dropout_rate=0.0)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout_rate": 0.1}, "dropout_key: expected a key, as from jax.random.key, got None"),
        ({"dropout_rate": 1.0}, r"dropout_rate: expected a Python number in \[0, 1\), got 1.0"),
        ({"dropout_rate": -0.1}, "dropout_rate: expected at least 0, got -0.1"),
        ({"dropout_rate": 0.1, "dropout_key": 3.0}, "dropout_key: expected one key"),
    ],
)
def test_bad_arguments_are_named(plain_checks, options, message):
    x = jnp.ones((1, 4, 1, 4))
    with pytest.raises(ValueError, match=message):
        attend(x, x, x, **options)
    with pytest.raises(NotImplementedError, match="it has no dropout"):
        attend(x, x, x, dropout_rate=0.1, dropout_key=jax.random.key(0), implementation="cudnn")
