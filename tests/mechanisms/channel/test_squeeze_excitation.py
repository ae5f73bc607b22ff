"""Squeeze and excitation: by hand, its limits, and what it is a limit of."""

import jax
import jax.numpy as jnp
import numpy as np

from jattn.mechanisms import zoo
from jattn.mechanisms.channel.squeeze_excitation import squeeze_excitation
from jattn.mechanisms.channel.step_attention import step_attention

C = 8
GATE = zoo.make("se", dim=C, reduction=2)
PARAMS = jax.jit(GATE.init)(jax.random.key(0))
APPLY, FACTORS = jax.jit(GATE.apply), jax.jit(GATE.factors)
X = np.random.default_rng(0).standard_normal((2, 3, 5, C)).astype(np.float32)


def by_hand(x):
    """Loops over images and channels, in float64."""
    down, up = (np.asarray(PARAMS[name], np.float64) for name in ("down", "up"))
    y = np.array(x, np.float64)
    for image in y:
        mean = [image[..., channel].sum() / image[..., channel].size for channel in range(C)]
        hidden = [max(0.0, np.dot(mean, down[:, unit])) for unit in range(C // 2)]
        for channel in range(C):
            image[..., channel] /= 1 + np.exp(-np.dot(hidden, up[:, channel]))
    return y


def test_by_hand():
    np.testing.assert_allclose(APPLY(PARAMS, X), by_hand(X), atol=1e-6)
    np.testing.assert_allclose(APPLY(PARAMS, X[:, 0]), by_hand(X[:, 0]), atol=1e-6)


def test_factors_shrink_and_zero_weights_halve():
    factors = np.asarray(FACTORS(PARAMS, X))
    assert factors.shape == (2, 1, 1, C)
    assert ((factors > 0) & (factors < 1)).all()
    assert (np.abs(APPLY(PARAMS, X)) <= np.abs(X)).all()
    halved = APPLY(PARAMS | {"up": jnp.zeros_like(PARAMS["up"])}, X)
    np.testing.assert_array_equal(halved, X / 2)


def test_any_place_may_be_padding():
    """An image inside a larger one gets what it gets alone; what is around becomes zeros."""
    large, real = np.full((2, 6, 7, C), np.nan, np.float32), np.zeros((2, 6, 7), bool)
    large[:, 1:4, 2:7], real[:, 1:4, 2:7] = X, True
    y = np.asarray(jax.jit(GATE.apply)(PARAMS, large, mask=real))
    np.testing.assert_allclose(y[:, 1:4, 2:7], APPLY(PARAMS, X), atol=1e-6)
    assert not y[~real].any()


def test_step_attention_without_its_other_inputs_is_this():
    """Weights of the mean of x and of the difference zero, and `down` those of the change."""
    down = jnp.concatenate([PARAMS["down"], jnp.zeros((2 * C, C // 2))])
    step = step_attention({"down": down, "up": PARAMS["up"]}, x := jnp.asarray(X), 2 - x)
    np.testing.assert_allclose(step, squeeze_excitation(PARAMS, x), atol=1e-6)
