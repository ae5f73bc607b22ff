"""FluidWorld's parts: its patches, what a belief keeps, how far it sees in one frame."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.systems import fluid_world as fluid

PATCH, CHANNELS, SIDE = 2, 6, 8


@pytest.fixture(scope="module")
def params():
    return fluid.fluid_world_init(jax.random.key(0), CHANNELS, PATCH, layers=2)


def test_patches_come_back():
    images = jax.random.normal(jax.random.key(0), (3, SIDE, SIDE))
    found = fluid.to_patches(images, PATCH)
    np.testing.assert_array_equal(found[1, 0, 3], images[1, :2, 6:8].ravel())
    np.testing.assert_array_equal(fluid.from_patches(found, PATCH), images)


def test_a_frame_and_the_one_before_are_both_seen(params):
    frame, before = jax.random.uniform(jax.random.key(1), (2, 1, SIDE, SIDE))
    out = lambda f, b: fluid.encode(params, f, b, PATCH).sum()
    for gradient in jax.jit(jax.grad(out, argnums=(0, 1)))(frame, before):
        assert (np.abs(gradient) > 0).all()


@pytest.mark.parametrize(("kept", "bound"), [(2.0, 0.99), (0.01, 0.5), (0.7, 0.7)])
def test_what_is_kept_is_bounded(params, kept, bound):
    chosen = params | {"log_kept": jnp.full(CHANNELS, jnp.log(kept))}
    belief, z = jnp.ones((1, 4, 4, CHANNELS)), jnp.zeros((1, 4, 4, CHANNELS))
    # Nothing is written where the value is zero, as its bias is at first.
    np.testing.assert_allclose(fluid.write(chosen, belief, z), bound, rtol=1e-5)


def test_the_belief_takes_no_longer_steps_than_allowed(params):
    belief = jax.random.normal(jax.random.key(2), (1, 4, 4, CHANNELS))
    of = lambda dt: fluid.evolve_belief(
        params | {"belief": params["belief"] | {"log_dt": jnp.log(dt)}}, belief
    )
    np.testing.assert_allclose(of(0.3), of(fluid.LONGEST), rtol=1e-5, atol=1e-6)
    assert not np.allclose(of(0.1), of(fluid.LONGEST))


def test_no_steps_change_nothing_and_reads_are_pixels(params):
    belief = 30 * jax.random.normal(jax.random.key(3), (2, 4, 4, CHANNELS))
    np.testing.assert_array_equal(fluid.evolve_belief(params, belief, steps=0), belief)
    pixels = np.asarray(fluid.read(params, belief, PATCH))
    assert pixels.shape == (2, SIDE, SIDE)
    assert ((pixels >= 0) & (pixels <= 1)).all()


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match=r"^channels"):
        fluid.fluid_world_init(jax.random.key(0), 0, PATCH)
