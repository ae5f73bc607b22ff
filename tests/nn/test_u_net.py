"""The U-Net: what its options are, where its gates stand, and what it refuses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn.nn import Convolution, UNet, UNetConfig

IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))


def net(**options) -> Any:
    return UNet(UNetConfig(outputs=options.pop("outputs", 2), widths=(4, 8), **options),
                rngs=nnx.Rngs(0))  # fmt: skip


def test_a_convolution_is_that_of_xla():
    layer: Any = Convolution(3, 5, rngs=nnx.Rngs(1))
    layer.bias[...] = jnp.arange(5.0)
    x = jax.random.normal(jax.random.key(1), (2, 6, 7, 3))
    theirs = jax.lax.conv_general_dilated(
        x, layer.kernel[...], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer(x), theirs + jnp.arange(5.0), atol=1e-5)


def test_a_gate_multiplies_what_its_level_gives():
    model = net(gate=("semantic_gate", {"classes": 3}))
    out = model(IMAGES)
    assert [factors.shape for factors in out.factors] == [(2, 8, 8, 1)]
    gate = model.gates[0].params["classes"]
    gate["weight"][...] *= 0
    gate["bias"][...] = jnp.array([-1e4, 0.0, 0.0])  # no background: the gate is open
    opened = model(IMAGES).values
    gate["bias"][...] = jnp.array([1e4, 0.0, 0.0])
    shut = model(IMAGES).values
    model.gates = nnx.List([])
    np.testing.assert_allclose(opened, model(IMAGES).values, atol=1e-5)
    np.testing.assert_allclose(shut, np.broadcast_to(model.head.bias[...], shut.shape), atol=1e-6)


def test_mixers_join_places_that_convolutions_do_not():
    far = lambda model: np.abs(
        np.asarray(model(IMAGES).values - model(IMAGES.at[:, 0, 0].add(3.0)).values)[:, 7, 7]
    ).max()
    # Group norms see all places, but hardly: what is left is the mixer's.
    assert far(net(mixers=("softmax_attention",))) > 3 * far(net())


def test_one_map_opens_all_levels_and_each_head_its_own():
    model = net(map_widths=(4, 4))
    before = model(IMAGES).values
    model.map.head.bias[...] += 3.0
    assert not np.allclose(before, model(IMAGES).values, atol=1e-3)
    for head in model.heads:
        for part in ("inner", "outer"):
            head[part]["weight"][...] *= 0
            head[part]["bias"][...] *= 0
    halved = model(IMAGES).values  # gates of 1/2, and the features: 3/2 at every level
    model.map.head.bias[...] += 3.0
    np.testing.assert_allclose(halved, model(IMAGES).values, atol=1e-6)


def test_a_restored_image_is_a_residual():
    model = net(outputs=1, supervise=True)
    for part in ("image", "gate", "features"):
        model.supervised[part]["weight"][...] *= 0
    model.head.kernel[...] *= 0
    out = model(IMAGES)
    np.testing.assert_array_equal(out.restored, IMAGES)
    np.testing.assert_array_equal(out.values, IMAGES)


def test_what_does_not_fit_is_refused():
    for options, message in (
        (dict(gate="softmax_attention"), "gate: expected a gate, got 'softmax_attention'"),
        (dict(mixers=("se",)), "mixer: expected a mixer, got 'se'"),
        (dict(map_widths=(4,)), "map_widths: expected two levels at least, or none, got 1"),
        (dict(supervise=True), "supervise: needs as many outputs as the images have channels"),
    ):
        with pytest.raises(ValueError, match=message):
            net(**options)
    with pytest.raises(ValueError, match="widths: expected two levels at least, got 1"):
        UNetConfig(outputs=2, widths=(4,))
    with pytest.raises(ValueError, match="expected sides that can be halved 1 times, got 7 x 8"):
        net()(IMAGES[:, :7])
