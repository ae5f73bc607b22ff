"""The weight of each token and head on a position, against weights worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.lens.sinks import weight_on_position
from jattn.mechanisms.softmax.affine_attention import alpha_of

B, T, H, M = 2, 6, 2, 8
X = jax.random.normal(jax.random.key(0), (B, T, M))


def weights_by_hand(params):
    heads = lambda name: np.asarray(X @ params[name], np.float64).reshape(B, T, H, M // H)
    scores = np.einsum("bthd,bshd->bths", heads("query"), heads("key")) / (M // H) ** 0.5
    weights = np.exp(scores) * np.tri(T)[None, :, None]
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("position", [0, 2])
def test_softmax_attention(position):
    mixer = jattn.zoo.make("softmax_attention", dim=M, heads=H, causal=True)
    params = mixer.init(jax.random.key(1))
    found = weight_on_position(mixer, params, X, heads=H, position=position)
    np.testing.assert_allclose(found, weights_by_hand(params)[..., position], atol=1e-6)


def test_affine_attention_with_its_scale_and_shift():
    mixer = jattn.zoo.make("affine_attention", dim=M, heads=H, causal=True)
    params = mixer.init(jax.random.key(1)) | {"average": jnp.array(0.3)}
    alpha = np.asarray(alpha_of(X, params["alpha"]))
    seen = 1 + np.arange(T)[:, None]
    expected = alpha * weights_by_hand(params)[..., 0] + (0.3 - alpha) / seen
    found = weight_on_position(mixer, params, X, heads=H)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.min() < 0.1


def test_bad_input_is_named():
    mixer = jattn.zoo.make("softmax_attention", dim=M, heads=H)
    params = mixer.init(jax.random.key(1))
    with pytest.raises(ValueError, match="position: expected 0 to 5, got 6"):
        weight_on_position(mixer, params, X, heads=H, position=6)
    bare = mixer._replace(parts=None)
    with pytest.raises(ValueError, match="mixer: expected one with parts"):
        weight_on_position(bare, params, X, heads=H)
