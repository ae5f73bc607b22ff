"""Losses of attention maps: bounds, identities, and what descending them does."""

import jax
import jax.numpy as jnp
import numpy as np

from jattn.losses import attention_maps as losses

RNG = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(RNG.random(shape), jnp.float32)


def close(got, expected, tolerance=1e-6):
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_overlap_and_intersection_over_union():
    a, b = draw(5, 9), draw(5, 9)
    o = losses.soft_overlap(a, b)
    close(losses.soft_iou(a, b), o / (1 - o))
    close(o, losses.soft_overlap(b, a))
    close(losses.soft_overlap(3 * a, 3 * b), o)
    close(losses.soft_overlap(a, a), 0.5)
    close(losses.soft_iou(a, a), 1)
    zero = jnp.zeros(9)
    assert losses.soft_overlap(zero, zero) == 0
    assert np.isfinite(jax.grad(losses.soft_overlap)(zero, zero)).all()


def test_anti_segregation_of_two_views():
    a = draw(9)
    close(losses.anti_segregation(jnp.stack([a, a])), 0.05)
    disjoint = jnp.stack([jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])])
    close(losses.anti_segregation(disjoint), 0.45)
    close(losses.anti_segregation(jnp.ones((1, 4))), 0)
    # An overlap of 0.45: 0.9 of 2.
    near = jnp.stack([jnp.array([1.0, 0.0]), jnp.array([0.9, 0.1])])
    close(losses.anti_segregation(near), 0)


def test_retention_and_diversity_are_bounded():
    maps, masks = draw(3, 9), (draw(3, 9) > 0.5).astype(jnp.float32)
    assert 1.5 <= losses.retention(maps, masks) <= 3
    assert 0 < losses.diversity(maps) <= 1
    close(losses.diversity(jnp.stack([maps[0], 2 * maps[0]])), 1)
    assert losses.diversity(maps[:1]) == 0


def localized(maps, mask, valid=True):
    shape = (1, 1, mask.shape[-1], 1)
    given = maps.reshape(shape), mask.reshape(1, 1, -1)
    return losses.localization(*given, jnp.zeros((1, 1), int), jnp.full((1, 1), valid), eps=1e-9)


def test_localization_is_a_gap_of_means():
    mask, maps = jnp.array([1.0, 1.0, 0.0, 0.0, 0.0]), draw(5)
    close(localized(mask, mask), -1)
    close(localized(jnp.full(5, 0.3), mask), 0)
    close(localized(maps, 1 - mask), -localized(maps, mask))
    close(localized(2 * maps, mask), 2 * localized(maps, mask))
    assert localized(maps, mask, valid=False) == 0


def test_free_maps_come_apart_and_stay_where_they_were():
    """Two overlapping Gaussians: segregation falls by four fifths; retention keeps the mask."""
    x = jnp.arange(24.0)
    start = jnp.stack([-((x - c) ** 2) / 18 for c in (10.0, 14.0)])
    first = jax.nn.softmax(start)
    masks = (first > 0.5 * first.max(-1, keepdims=True)).astype(jnp.float32)
    scaled = lambda maps: maps / maps.max(-1, keepdims=True)

    def end(weight):
        def loss(logits):
            maps = scaled(jax.nn.softmax(logits))
            return losses.segregation(maps) + weight * losses.retention(maps, masks)

        step = lambda logits, _: (logits - 2.0 * jax.grad(loss)(logits), None)
        return scaled(jax.nn.softmax(jax.lax.scan(step, start, length=200)[0]))

    apart, kept = jax.jit(lambda: (end(0.0), end(1.0)))()
    assert losses.segregation(apart) <= 0.2 * losses.segregation(scaled(first))
    covered = lambda maps: losses.soft_iou(maps, masks).mean()
    assert covered(kept) >= 0.5
    assert covered(kept) > covered(apart)


def test_attention_is_drawn_to_saliency_which_gets_no_gradient():
    a, s = jax.nn.softmax(draw(6)), jax.nn.softmax(draw(6))
    for distance in ("squared", "kl"):
        run = lambda a, s, distance=distance: losses.alignment(a, s, distance=distance)
        close(run(s, s), 0)
        assert run(a, s) > 0
        of_a, of_s = jax.grad(run, (0, 1))(a, s)
        assert of_a.any()
        assert not of_s.any()


def test_distance_of_maps():
    """A uniform map looks as far as pairs lie apart; turning the grid changes nothing."""
    places = jnp.stack(jnp.meshgrid(jnp.arange(3.0), jnp.arange(4.0)), -1).reshape(-1, 2)
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    close(losses.attention_distance(jnp.full((12, 12), 1 / 12), places), apart.mean(), 1e-5)
    maps = jax.nn.softmax(draw(2, 12, 12))
    turn = jnp.array([[0.6, -0.8], [0.8, 0.6]])
    found = losses.attention_distance(maps, places)
    close(losses.attention_distance(maps, places @ turn + 5), found, 1e-5)
    close(losses.attention_distance(maps, 2 * places), 2 * found, 1e-5)
