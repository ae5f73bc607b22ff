"""DyDiLA: its power features, its difference, and routing straight through an argmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.linear.dydila import dydila as core
from jattn.mechanisms.linear.dydila import power_features, st_argmax_route
from jattn.mechanisms.linear.linear_attention import linear_attention

B, T, S, H, D, E = 2, 5, 6, 2, 4, 3
dydila = jax.jit(core, static_argnames="scale")
features = jax.jit(power_features)


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.fixture
def case():
    shapes = (T, D), (S, D), (S, E), (T, D), (S, D)
    return [draw(i, B, length, H, size) for i, (length, size) in enumerate(shapes)]


@pytest.fixture
def chosen():
    """A power and a share for every token and head."""
    lengths = dict(gamma_q=T, gamma_k=S, gamma_qp=T, gamma_kp=S, lam_q=T, lam_k=S)
    return {
        name: jnp.exp(0.5 * draw(10 + i, B, length, H))
        for i, (name, length) in enumerate(lengths.items())
    }


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def test_powers_keep_the_length_and_scale():
    z, gamma = draw(0, 7, D), jnp.asarray([0.5, 1.0, 2.0, 3.0, 5.0, 9.0, 20.0])
    found, positive = features(z, gamma), jax.nn.relu(z)
    length = np.linalg.norm(positive, axis=-1)
    close(np.linalg.norm(found, axis=-1), length)
    power = np.where(positive > 0, np.asarray(positive, np.float64) ** gamma[:, None], 0)
    norm = np.linalg.norm(power, axis=-1)
    close(found, power * (length / np.where(norm == 0, 1, norm))[:, None])
    close(features(z, jnp.ones(7)), positive)
    for factor in (0.01, 30.0):
        close(features(factor * z, gamma) / factor, found)
    assert np.isfinite(features(1e15 * z, gamma)).all()  # the 20th power of this overflows


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_vectors_without_a_positive_channel_are_zero_with_finite_gradients(gamma):
    z = jnp.asarray([[-1.0, -2.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, -1.0, 2.0]])
    run = lambda z, g: power_features(z, jnp.broadcast_to(g, 3))
    assert not np.any(run(z, jnp.float32(gamma))[:2])
    slopes = jax.jit(jax.jacobian(run, (0, 1)))(z, jnp.float32(gamma))
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_factors_are_the_quadratic_form_and_values_enter_linearly(case, chosen):
    query, key, value, other_query, other_key = case
    phi = lambda x, name: features(x, chosen[name])
    left = phi(query, "gamma_q") - chosen["lam_q"][..., None] * phi(other_query, "gamma_qp")
    right = phi(key, "gamma_k") - chosen["lam_k"][..., None] * phi(other_key, "gamma_kp")
    weights = jnp.einsum("bthd,bshd->bhts", left, right)
    run = lambda value: dydila(query, key, value, other_query, other_key, **chosen, scale=0.5)
    close(run(value), 0.5 * jnp.einsum("bhts,bshe->bthe", weights, value), 1e-4)
    other = draw(20, B, S, H, E)
    close(run(value - 2 * other), run(value) - 2 * run(other), 1e-4)
    # Tokens have no order.
    turned = {name: x[:, ::-1] for name, x in chosen.items()}
    close(dydila(*(x[:, ::-1] for x in case), **turned, scale=0.5), run(value)[:, ::-1], 1e-4)


def test_limits(case, chosen):
    query, key, value, *others = case
    none = chosen | dict(lam_q=jnp.zeros((1, 1, 1)), lam_k=jnp.zeros((1, 1, 1)))
    mapped = features(query, chosen["gamma_q"]), features(key, chosen["gamma_k"])
    plain = linear_attention(*mapped, value, feature_map="identity", normalize=False)
    close(dydila(query, key, value, *others, **none), plain)
    none |= dict(gamma_q=jnp.ones((1, 1, 1)), gamma_k=jnp.ones((1, 1, 1)))
    found = dydila(query, key, value, *others, **none)
    close(found, linear_attention(query, key, value, feature_map="relu", normalize=False))
    same = chosen | dict(gamma_qp=chosen["gamma_q"], lam_q=jnp.ones((1, 1, 1)))
    close(dydila(query, key, value, query, others[1], **same), 0)


def test_gradients_of_routing_are_those_of_softmax():
    scores, bank, slope = draw(0, 3, 4), draw(1, 4), draw(2, 3)
    hard = st_argmax_route(scores)
    assert (hard == jax.nn.one_hot(scores.argmax(-1), 4)).all()
    found = jax.grad(lambda scores: slope @ (st_argmax_route(scores) @ bank))(scores)
    soft = jax.nn.softmax(scores)
    jacobian = soft[:, :, None] * (jnp.eye(4) - soft[:, None, :])
    close(found, jnp.einsum("bnm,bm->bn", jacobian, slope[:, None] * bank))


def test_larger_powers_sharpen_the_weights():
    """Mean entropy of the rows and mean cosine of the features, of 100 Gaussian tokens."""
    query, key = draw(0, 2, 100, 16)

    def measure(gamma):
        phi_q, phi_k = (features(x, jnp.full(100, gamma)) for x in (query, key))
        weights = np.asarray(phi_q @ phi_k.T, np.float64)
        shares = weights / weights.sum(-1, keepdims=True)
        entropy = -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0)
        norms = np.linalg.norm(phi_q, axis=-1)[:, None] * np.linalg.norm(phi_k, axis=-1)
        return entropy.sum(-1).mean(), (weights / norms).mean()

    found = np.array([measure(gamma) for gamma in (1.0, 2.0, 3.0, 5.0)])
    assert (np.diff(found, axis=0) < 0).all()
    close(found[:, 0], [4.42, 4.19, 3.90, 3.38], 0.03)
    close(found[[0, -1], 1], [0.34, 0.12], 0.05)
    assert found[0, 0] < np.log(100)


def test_routed_mixers_choose_for_each_token():
    mixer = zoo.make("dydila", dim=8, heads=2, projections=3, powers=4, shares=5, grid=(2, 3))
    params = jax.jit(mixer.init)(jax.random.key(0))
    assert set(params["router"]) == {"projection", "power", "share"}
    params["power"] = jax.tree.map(lambda g: g + jnp.arange(4.0), params["power"])
    params["share"] = params["share"] + jnp.arange(5.0)
    x = draw(3, B, 6, 8)
    loss = jax.jit(jax.value_and_grad(lambda params: (mixer.apply(params, x) ** 2).sum()))
    value, slopes = loss(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(slopes))
    # Scores that are all scaled choose the same; turned over, they choose others.
    for factor in (5.0, -1.0):
        other = params | {"router": jax.tree.map(lambda w: factor * w, params["router"])}  # noqa: B023
        assert (abs(loss(other)[0] - value) < 1e-3 * value) == (factor > 0)
    # Copies in the banks: whatever is chosen, it is what the mixer without a choice has.
    small = zoo.make("dydila", dim=8, heads=2, grid=(2, 3))
    single = small.init(jax.random.key(1))
    copies = single | {"router": params["router"], "share": jnp.repeat(single["share"], 5)}
    copies["power"] = jax.tree.map(lambda g: jnp.repeat(g, 4), single["power"])
    copies |= {n: jnp.repeat(single[n], 3, 0) for n in ("redundant_query", "redundant_key")}
    close(jax.jit(mixer.apply)(copies, x), jax.jit(small.apply)(single, x))


def test_the_convolution_sees_neighbours_on_the_grid():
    mixer = zoo.make("dydila", dim=8, heads=2, grid=(3, 4))
    params = jax.jit(mixer.init)(jax.random.key(0))
    x = draw(0, 1, 12, 8)
    without = zoo.make("dydila", dim=8, heads=2)
    rest = {name: leaf for name, leaf in params.items() if name != "convolution"}
    value = np.asarray(x @ params["value"]).reshape(3, 4, 8)
    padded = np.pad(value, ((1, 1), (1, 1), (0, 0)))
    taps = params["convolution"]
    shifted = [padded[i : i + 3, j : j + 4] * taps[i, j] for i in range(3) for j in range(3)]
    expected = np.sum(shifted, 0)
    found = mixer.apply(params, x) - without.apply(rest, x)
    close(found[0], expected.reshape(12, 8) @ params["output"], 1e-4)
    # Padding is outside the picture.
    real = jnp.arange(12)[None] < 8
    padded = mixer.apply(params, x, mask=real)
    close(padded, mixer.apply(params, jnp.where(real[..., None], x, 9.0), mask=real)
          .at[:, 8:].set(padded[:, 8:]))  # fmt: skip


def test_errors(plain_checks, case, chosen):
    with pytest.raises(ValueError, match=r"redundant_key: expected shape \[.*s=6"):
        core(case[0], case[1], case[2], case[3], case[4][:, 1:], **chosen)
    with pytest.raises(ValueError, match="powers: expected at least 1, got 0"):
        zoo.make("dydila", dim=8, heads=2, powers=0)
    mixer = zoo.make("dydila", dim=8, heads=2, grid=(2, 3))
    params = jax.jit(mixer.init)(jax.random.key(0))
    with pytest.raises(ValueError, match="x: expected 2 x 3 = 6 tokens, got 5"):
        mixer.apply(params, jnp.ones((1, 5, 8)))
    with pytest.raises(ValueError, match="context: dydila on a grid"):
        mixer.apply(params, jnp.ones((1, 6, 8)), context=jnp.ones((1, 4, 8)))
