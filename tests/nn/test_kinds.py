"""Gates, pools and pointers as modules, and the networks that take them by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jattn.nn import (
    Gate,
    PointerNetwork,
    PointerNetworkConfig,
    ResidualNetwork,
    ResidualNetworkConfig,
    pointing_loss,
)
from jattn.tasks import planar


def test_a_gate_moves_its_averages_in_training_alone():
    gate = Gate("srm", dim=4, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (3, 5, 4))
    before = jax.tree.map(np.asarray, gate.arrays()["statistics"])
    gate(x)
    np.testing.assert_array_equal(gate.arrays()["statistics"]["mean"], before["mean"])
    y = gate(x, training=True)
    expected, after = gate.pair.train(gate.arrays() | {"statistics": before}, x)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(gate.arrays()["statistics"]["mean"], after["mean"], atol=1e-6)
    trained = nnx.state(gate, nnx.Param)
    assert set(trained["params"]) == {"style", "norm"}


def test_another_kind_is_refused(plain_checks):
    with pytest.raises(ValueError, match="mechanism: expected a gate, got 'simpool', a pool"):
        Gate("simpool", dim=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="pool: expected a pool, got 'se', a gate"):
        ResidualNetworkConfig(classes=2, pool="se")
    with pytest.raises(ValueError, match=r"pointer: expected pointer_network, .* got 'oat'"):
        PointerNetworkConfig(pointer="oat")


def test_a_residual_network_learns_with_a_gate_and_a_pool():
    """Bright or dark: a step of training lowers the loss, and moves every kind of variable."""
    config = ResidualNetworkConfig(
        classes=2, widths=(4, 8), gate=("srm", {}), pool=("efficient_probing", {"queries": 2})
    )
    model = ResidualNetwork(config, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    labels = jnp.arange(8) % 2
    images = jax.random.normal(jax.random.key(0), (8, 8, 8, 1)) + labels[:, None, None, None]

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            logits = model(images, training=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    losses = [float(step(model, optimizer)) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    assert model(images).shape == (8, 2)


MODEL = PointerNetwork(PointerNetworkConfig(dim=8), rngs=nnx.Rngs(0))
POINTS, REAL = planar.points_in_square(jax.random.key(1), 3, fewest=4, most=6)


def test_steps_are_what_teacher_forcing_says():
    """Decoded answers, given back as targets, are the likeliest at each step."""
    decoded = nnx.jit(lambda m: m.decode(POINTS, 5, mask=REAL))(MODEL)
    logits = nnx.jit(lambda m: m(POINTS, decoded, mask=REAL))(MODEL)
    ended = (jnp.cumsum(decoded == 0, axis=1) - (decoded == 0)) > 0
    assert (jnp.where(ended, 0, logits.argmax(-1)) == decoded).all()
    chance = jax.nn.softmax(logits)
    assert (chance[..., 1:][jnp.broadcast_to(~REAL[:, None], chance[..., 1:].shape)] == 0).all()


def test_padding_changes_nothing():
    """A set by itself, or behind it points that are none."""
    run = nnx.jit(lambda m, p, r: m(p, jnp.array([[2, 1, 0]]), mask=r))
    alone = run(MODEL, POINTS[:1, :4], jnp.ones((1, 4), bool))
    real = jnp.arange(6)[None] < 4
    padded = run(MODEL, jnp.where(real[..., None], POINTS[:1], jnp.float32(9.0)), real)
    np.testing.assert_allclose(padded[..., :5], alone, atol=1e-6)


def test_tours_visit_all_once_and_stop():
    tours = np.asarray(nnx.jit(lambda m: m.decode(POINTS, 7, mask=REAL, tour=True))(MODEL))
    for tour, real in zip(tours, REAL, strict=True):
        count = int(real.sum())
        assert sorted(tour[:count]) == list(range(1, count + 1))
        assert not tour[count:].any()


def test_the_loss_ends_with_the_first_stop():
    logits = jax.random.normal(jax.random.key(2), (1, 4, 3))
    targets = jnp.array([[1, 0, 0, 0]])
    expected = -jax.nn.log_softmax(logits)[0, jnp.arange(2), jnp.array([1, 0])].mean()
    np.testing.assert_allclose(pointing_loss(logits, targets), expected, rtol=1e-6)
    later = logits.at[:, 2:].add(5.0)
    np.testing.assert_allclose(pointing_loss(later, targets), expected, rtol=1e-6)
