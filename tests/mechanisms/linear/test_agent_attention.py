"""Agent attention against softmax attention written out, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.attention.attend import attend
from jattn.mechanisms.layers.convolutions import depthwise
from jattn.mechanisms.linear.agent_attention import (
    agent_attention,
    image_agent_attention,
    make,
    pool_agents,
    pooling_weights,
)

B, T, H, D, N = 2, 7, 2, 4, 3
run = jax.jit(agent_attention, static_argnames=("shortcut", "scale", "scale_out"))


@pytest.fixture
def case():
    keys = jax.random.split(jax.random.key(0), 4)
    query, key, value = (jax.random.normal(k, (B, T, H, D)) for k in keys[:3])
    return query, key, value, jax.random.normal(keys[3], (B, N, H, D))


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, atol=tolerance)


def test_weights_are_the_product_of_two_softmaxes(case):
    query, key, value, agents = case
    into = jax.nn.softmax(jnp.einsum("bnhd,bshd->bhns", agents, key) / D**0.5, -1)
    out = jax.nn.softmax(jnp.einsum("bthd,bnhd->bhtn", query, agents) / D**0.5, -1)
    weights = out @ into
    close(weights.sum(-1), jnp.ones((B, H, T)))
    assert np.linalg.matrix_rank(weights[0, 0], tol=1e-5) <= N
    close(run(*case), jnp.einsum("bhts,bshd->bthd", weights, value))
    # the same as linear attention with these features
    gathered = jnp.einsum("bhns,bshd->bnhd", into, value)
    close(run(*case), jnp.einsum("bhtn,bnhd->bthd", out, gathered))


def test_one_agent_and_equal_agents_give_every_query_the_same(case):
    query, key, value, agents = case
    one = run(query, key, value, agents[:, :1])
    close(one, jnp.broadcast_to(attend(agents[:, :1], key, value), one.shape))
    close(run(query, key, value, jnp.repeat(agents[:, :1], N, axis=1)), one)
    mean = run(query, key, value, jnp.zeros_like(agents))
    close(mean, jnp.broadcast_to(value.mean(1, keepdims=True), mean.shape))


def test_permutations_and_constants(case):
    query, key, value, agents = case
    order, some = jnp.array([3, 1, 0, 6, 2, 5, 4]), jnp.array([2, 0, 1])
    y = run(*case)
    close(run(query, key, value, agents[:, some]), y)
    close(run(query, key[:, order], value[:, order], agents), y)
    close(run(query[:, order], key, value, agents), y[:, order])
    close(run(query, key, jnp.ones_like(value), agents), jnp.ones_like(value))
    bias_in, bias_out = jax.random.normal(jax.random.key(5), (2, 1, H, N, T))
    both = dict(bias_in=bias_in, bias_out=jnp.swapaxes(bias_out, 2, 3))
    moved = {"bias_in": bias_in[:, :, some], "bias_out": both["bias_out"][..., some]}
    close(run(query, key, value, agents[:, some], **moved), run(*case, **both))
    assert abs(run(*case, **both) - y).max() > 1e-2


def test_scales_and_shortcut(case):
    query, key, value, agents = case
    gathered = attend(agents, key, value, scale=0.5)
    expected = attend(query, agents, gathered, scale=0.5**0.3) + 0.075 * value
    close(run(*case, scale=0.5, scale_out=0.5**0.3, shortcut=0.075), expected)


def test_pooling():
    # adaptive average pooling of 5 to 3: [0, 2), [1, 4), [3, 5)
    expected = [[0.5, 0.5, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 0.5, 0.5]]
    close(pooling_weights(3, 5)[0], jnp.array(expected))
    mask = jnp.array([[True, False, True, True, False]])
    close(pooling_weights(3, 5, mask)[0], jnp.eye(5)[jnp.array([0, 2, 3])])
    query = jax.random.normal(jax.random.key(0), (1, 12, H, D))
    close(pool_agents(query, (3, 4), 1)[:, 0], query.mean(1))
    square = query[:, :9]
    close(pool_agents(square, (3, 3), 3), square)


def test_a_delta_adds_the_values_and_the_class_token_takes_no_part(case):
    query, key, value, _ = (jnp.tile(x, (1, 2, 1, 1))[:, :10] for x in case)
    params = make(dim=H * D, heads=H, agents=4, grid=(3, 3), class_token=True).init(
        jax.random.key(0)
    )
    weight = jnp.zeros((3, 3, H * D))
    image = lambda taps: image_agent_attention(
        query, key, value, params["biases"],
        {"weight": taps, "bias": jnp.zeros(H * D)}, grid=(3, 3),
    )  # fmt: skip
    change = image(weight.at[1, 1].set(1.0)) - image(weight)
    close(change, value.at[:, 0].set(0.0))
    x = jax.random.normal(jax.random.key(1), (1, 5, 2))
    taps = jnp.arange(6.0).reshape(3, 2)
    close(depthwise(x, taps, jnp.ones(2))[0, 0], x[0, 0] * taps[1] + x[0, 1] * taps[2] + 1)


def smooth_field(key, side, dim):
    """Noise blurred with a standard deviation of 2 cells, brought back to variance 1."""
    at = jnp.arange(side)
    blur = jnp.exp(-((at[:, None] - at) ** 2) / 8.0)
    field = jnp.einsum("yv,xw,vwd->yxd", blur, blur, jax.random.normal(key, (side, side, dim)))
    return (field / field.std()).reshape(1, side**2, 1, dim)


def test_more_agents_come_closer_to_softmax_on_smooth_images():
    side, dim, counts = 14, 16, (1, 2, 3, 5, 7)

    @jax.jit
    def errors(key):
        keys = jax.random.split(key, 3)
        query, value = smooth_field(keys[0], side, dim), smooth_field(keys[1], side, dim)
        noise = smooth_field(keys[2], side, dim)
        keyed = query + 0.3 * noise
        truth = attend(query, keyed, value)
        found = [
            agent_attention(query, keyed, value, pool_agents(query, (side, side), n))
            for n in counts
        ]
        return jnp.stack([jnp.linalg.norm(f - truth) / jnp.linalg.norm(truth) for f in found])

    found = np.mean([errors(key) for key in jax.random.split(jax.random.key(0), 5)], axis=0)
    assert (np.diff(found) < 0).all()
    assert found[-1] <= 0.5 * found[0]


def test_bad_sizes(plain_checks):
    with pytest.raises(ValueError, match="agents: expected at least 1, a square"):
        make(dim=8, heads=2, agents=3, grid=(2, 2))
    with pytest.raises(ValueError, match="class_token: only an image"):
        make(dim=8, heads=2, class_token=True)
    mixer = make(dim=8, heads=2, grid=(2, 3))
    with pytest.raises(ValueError, match="x: expected"):
        mixer.apply(mixer.init(jax.random.key(0)), jnp.ones((1, 7, 8)))
