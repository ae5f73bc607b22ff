"""Gates over places, codes, blocks of restoration, and losses that go with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.losses import focal, segmentation, signals
from jattn.losses.attention_maps import control_saliency
from jattn.mechanisms.channel import residual_channel_attention as block
from jattn.mechanisms.channel.codebook_bottleneck import (
    codebook_bottleneck,
    codebook_bottleneck_init,
    combined_codes,
)
from jattn.mechanisms.channel.semantic_gate import class_maps, semantic_gate
from jattn.mechanisms.channel.soft_mask_attention import (
    frame_differences,
    soft_mask_attention,
    temporal_shift,
)
from jattn.mechanisms.cross import global_attention as medusa
from jattn.mechanisms.cross import supervised_attention as sam

RNG = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_codes_are_combined_inside_their_hull():
    x, score, codes = draw(2, 3, 6), draw(6, 5), draw(5, 2)
    z = combined_codes(x, score, codes)
    close(z, jax.nn.softmax(x @ score) @ codes)
    assert ((z >= codes.min(0) - 1e-6) & (z <= codes.max(0) + 1e-6)).all()
    order = RNG.permutation(5)
    close(combined_codes(x, score[:, order], codes[order]), z)
    close(combined_codes(x, 0 * score, codes), jnp.broadcast_to(codes.mean(0), z.shape))
    sharp = combined_codes(x, 1e3 * score, codes)
    close(sharp, codes[(x @ score).argmax(-1)])


def test_the_bottleneck_is_as_narrow_as_a_code():
    params = codebook_bottleneck_init(jax.random.key(0), 6, codes=9, size=2)
    slope = jax.jacobian(lambda x: codebook_bottleneck(params, x[None, None])[0, 0])(draw(6))
    assert np.linalg.matrix_rank(slope, tol=1e-5) == 2


def test_soft_masks_sum_to_half_the_places():
    params, x = {"score": {"weight": draw(4, 1), "bias": draw(1)}}, draw(2, 3, 5, 4)
    mask = soft_mask_attention(params, x)
    close(mask.sum((1, 2, 3)), 15 / 2, 1e-4)
    m = jax.nn.sigmoid(x @ params["score"]["weight"] + params["score"]["bias"])
    close(mask, 15 * (3 * m) / (2 * (3 * m).sum((1, 2), keepdims=True)))


def test_frames_are_shifted_by_folds():
    x = draw(1, 5, 2, 2, 7)
    y = temporal_shift(x)
    close(y[:, :-1, ..., :2], x[:, 1:, ..., :2])
    close(y[:, 1:, ..., 2:4], x[:, :-1, ..., 2:4])
    close(y[..., 4:], x[..., 4:])
    assert not y[:, -1, ..., :2].any()
    close(temporal_shift(x, folds=8), x)  # more folds than channels move none
    still = jnp.broadcast_to(x[:, :1], x.shape)
    moved = np.abs(temporal_shift(still) - still).max((0, 2, 3, 4)) > 0
    assert moved.tolist() == [True, False, False, False, True]
    light = jnp.array([1.0, 2.0, 3.0, 1.0, 2.0])[None, :, None]
    close(frame_differences(light, normalized=True), frame_differences(7 * light, normalized=True))
    assert not frame_differences(still).any()


def test_a_background_closes_the_gate():
    params, x = {"classes": {"weight": draw(4, 3), "bias": draw(3)}}, draw(2, 5, 4)
    maps = class_maps(params, x)
    close(maps.sum(-1), 1)
    close(semantic_gate(params, x)[..., 0], 1 - maps[..., 0])
    for background, factor in ((-1e4, 1), (1e4, 0)):
        bias = params["classes"]["bias"].at[0].set(background)
        close(semantic_gate({"classes": params["classes"] | {"bias": bias}}, x), factor)


def test_one_map_feeds_all_scales():
    keys = jax.random.split(jax.random.key(0))
    heads = [medusa.global_attention_init(key, 4, 1) for key in keys]
    scales, world = (draw(1, 8, 8, 4), draw(1, 4, 4, 4)), draw(1, 8, 8, 1)
    run = lambda heads, world: [
        medusa.global_attention(h, f, world)[1] for h, f in zip(heads, scales, strict=True)
    ]
    gates, moved = run(heads, world), run(heads, world + 1)
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(gates, moved, strict=True))
    still = [jax.tree.map(jnp.zeros_like, heads[0]), heads[1]]
    half, same = run(still, world)
    close(half, 0.5)
    close(same, gates[1])
    close(medusa.global_attention(still[0], scales[0], world)[0], 1.5 * scales[0])
    close(medusa.resized(jnp.full((1, 4, 4, 1), 3.0), (9, 5)), 3.0)


def test_blocks_of_restoration():
    params, x = block.residual_channel_attention_init(jax.random.key(0), 4), draw(1, 5, 5, 4)
    still = params | {"outer": jax.tree.map(jnp.zeros_like, params["outer"])}
    close(block.residual_channel_attention(still, x), x)
    gate = sam.supervised_attention_init(jax.random.key(1), 4)
    image = draw(1, 5, 5, 3)
    alone = sam.supervised_attention(gate, x, image, gate_from="residual")
    close(alone[0], sam.supervised_attention(gate, x)[0])  # whose residual is all there is
    close(alone[1], sam.supervised_attention(gate, x, image)[1])


def test_unlabelled_places_have_no_gradient():
    p = jax.nn.softmax(draw(2, 6, 3))
    drawn = jnp.zeros((2, 6, 3), bool).at[0, 1, 2].set(True).at[1, 4, 0].set(True)
    weights = segmentation.class_weights(drawn)
    close(weights, jnp.array([1.0, 0.0, 1.0]))
    pull = jax.grad(lambda p: segmentation.scribble_cross_entropy(p, drawn, weights=weights))(p)
    assert (np.asarray(pull != 0) == np.asarray(drawn)).all()
    expected = -(np.log(p[0, 1, 2]) + np.log(p[1, 4, 0])) / 2
    close(segmentation.scribble_cross_entropy(p, drawn), expected)
    assert segmentation.scribble_cross_entropy(p, jnp.zeros_like(drawn)) == 0


def test_games_and_overlaps():
    real, fake = draw(5), draw(5)
    assert segmentation.least_squares_gan(jnp.ones(3), -jnp.ones(3)).discriminator == 0
    assert segmentation.least_squares_gan(real, jnp.ones(3)).generator == 0
    assert segmentation.least_squares_gan(real, fake).discriminator > 0
    mask = (draw(2, 4, 4) > 0).astype(jnp.float32)
    close(segmentation.dice(mask, mask), 1)
    close(segmentation.dice(1 - mask, mask), 0)


def test_focal_loss_is_below_cross_entropy():
    logits, labels = draw(7, 3), jnp.asarray(RNG.integers(3, size=7))
    entropy = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]
    close(focal.focal_loss(logits, labels, gamma=0.0), entropy)
    assert (focal.focal_loss(logits, labels) <= entropy).all()
    p = jnp.exp(-entropy)
    close(focal.focal_loss(logits, labels, alpha=0.25), 0.25 * (1 - p) ** 2 * entropy)


def test_correlations_of_signals():
    x = draw(3, 20)
    close(signals.negative_pearson(x, 2 * x + 1), 0)
    close(signals.negative_pearson(x, -x), 2)
    close(signals.negative_pearson(x, jnp.ones_like(x)), 1)
    y = draw(3, 20)
    expected = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)]
    close(signals.negative_pearson(x, y), expected)


def test_controls_depend_on_their_cell_even_where_the_loss_is_zero():
    z, weight = draw(5, 3), draw(3)
    policy = lambda z: z[2] @ weight
    found = control_saliency(policy, z)
    close(found, jnp.eye(5)[2])
    close(control_saliency(lambda z: 3 * policy(z) + 7, z), found)
    loss = lambda z: (policy(z) - policy(jax.lax.stop_gradient(z))) ** 2
    assert not jax.grad(loss)(z).any()
    close(control_saliency(lambda z: jnp.ones(()), z), 0)
    with pytest.raises(ValueError, match="reduce: expected one of 'norm', 'grad_cam', got 'max'"):
        control_saliency(policy, z, reduce="max")
