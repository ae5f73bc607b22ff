"""Conditioning: its rules against their definitions, its closed forms against draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.tasks import conditioning
from jattn.theory import hebbian_memory as memory
from jattn.theory import memory_capacity as capacity


def draw(seed=0, length=12, dim=6, columns=5, heads=2):
    keys = jax.random.split(jax.random.key(seed), 4)
    test = jax.random.normal(keys[0], (2, length, heads, dim))
    cs = conditioning.sphere(keys[1], (2, length, heads, dim))
    us = jax.random.normal(keys[2], (2, length, heads, columns))
    state = jax.random.normal(keys[3], (2, heads, dim, columns))
    return test, cs, us, state


def by_definition(test, cs, us, state, rule, alpha, gamma, tau):
    """The rules as they are written down, one pair after the other."""
    reads, theta = [], np.zeros(us[:, 0].shape)
    for q, k, v in zip(*(np.moveaxis(np.asarray(x), 1, 0) for x in (test, cs, us)), strict=True):
        theta = (1 - 1 / tau) * theta + v**2 / tau
        outer = lambda v, k=k: k[..., :, None] * v[..., None, :]
        if rule == "decay":
            state = gamma * state
        if rule == "delta":
            state = state + alpha * outer(v - np.einsum("bhd,bhde->bhe", k, state))
        elif rule == "oja":
            state = state + alpha * (outer(v) - state * (v**2)[..., None, :])
        elif rule == "bcm":
            state = state + alpha * outer(v * (v - theta))
        else:
            state = state + alpha * outer(v)
        reads.append(np.einsum("bhd,bhde->bhe", q, state))
    return np.stack(reads, 1), state


@pytest.mark.parametrize("rule", memory.RULES)
def test_rules_follow_their_definitions_in_every_mode(rule, x64):
    test, cs, us, state = draw()
    options = dict(alpha=0.6, gamma=0.8, tau=4.0)
    # Large activity, so that Oja's rule overshoots zero now and then.
    assert float((0.6 * us**2).max()) > 1
    expected = by_definition(test, cs, us, np.asarray(state), rule, **options)
    for mode in ("scan", "chunk", "parallel"):
        found = memory.condition(test, cs, us, rule=rule, initial_state=state, mode=mode, **options)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-10)


def test_hebb_with_a_feature_map_is_linear_attention():
    test, cs, us, _ = draw(columns=6)
    phi = lambda x: jax.nn.elu(x) + 1
    found, state = memory.condition(phi(test), phi(cs), us)
    expected = linear_attention(test, cs, us, normalize=False, causal=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(memory.recall(state, phi(test))[:, -1], found[:, -1], atol=1e-5)


def test_delta_rule_is_exact_and_keeps_order(x64):
    _, cs, us, _ = draw()
    found, _ = memory.condition(cs, cs, us, rule="delta")
    np.testing.assert_allclose(found, us, atol=1e-12)
    for rule, same in (("hebb", True), ("delta", False)):
        ahead = memory.condition(cs, cs, us, rule=rule)[1]
        back = memory.condition(cs, cs[:, ::-1], us[:, ::-1], rule=rule)[1]
        assert bool(jnp.allclose(ahead, back, atol=1e-12)) is same
    orthonormal = jnp.broadcast_to(jnp.eye(6)[:, None], (2, 6, 2, 6))
    for rule in ("hebb", "delta"):
        state = memory.condition(orthonormal, orthonormal, us[:, :6], rule=rule)[1]
        np.testing.assert_allclose(memory.recall(state, orthonormal), us[:, :6], atol=1e-12)


def test_oja_and_bcm_limits(x64):
    _, cs, us, state = draw(length=1)
    us = us / jnp.abs(us).max()
    # What is written to a zero key only shrinks columns.
    kept = memory.condition(cs, 0 * cs, us, rule="oja", initial_state=state)[1]
    assert bool((jnp.abs(kept) <= jnp.abs(state)).all())
    assert float(jnp.abs(memory.bcm_modulation(us, us)).max()) == 0
    np.testing.assert_allclose(memory.bcm_modulation(us, 0 * us), us**2)


def test_noise_and_its_spread_are_exact():
    key = jax.random.key(0)
    first, second = jax.random.split(key)
    cs = conditioning.sphere(first, (20_000, 8, 1, 16))
    us = conditioning.sphere(second, (20_000, 8, 1, 16))
    state = memory.condition(cs[:, 1:], cs[:, 1:], us[:, 1:])[1]
    power = np.asarray((memory.recall(state, cs[:, :1]) ** 2).sum(-1)).ravel()
    assert power.mean() == pytest.approx(capacity.noise_power(8, d_k=16), rel=0.02)
    spread = capacity.noise_spread(8, d_k=16, d_v=16)
    assert power.std() / power.mean() == pytest.approx(spread, rel=0.03)
    assert (power > 1).mean() == pytest.approx(
        capacity.failure_rate(8, d_k=16, d_v=16, delta=1.0), rel=0.25
    )


def test_capacity_lies_between_its_bounds_and_becomes_linear():
    dims = [16, 256, 4096]
    stars = [capacity.capacity(d, d_v=d, delta=1.0, epsilon=0.1) for d in dims]
    for d, star in zip(dims, stars, strict=True):
        assert capacity.capacity_floor(d, delta=1.0, epsilon=0.1) < star
        assert star < capacity.capacity_ceiling(d, delta=1.0)
    slopes = np.diff(np.log(stars)) / np.diff(np.log(dims))
    assert 1.0 < slopes[1] < slopes[0] < 1.3


def test_decay_noise_and_network_failure_by_hand():
    weights = 0.9 ** np.arange(5)
    expected = ((weights**2).sum() - weights[2] ** 2) / 7
    assert capacity.decay_noise(5, 2, d_k=7, gamma=0.9) == pytest.approx(expected)
    assert capacity.decay_noise(5, 2, d_k=4, gamma=1) == capacity.noise_power(5, d_k=4)
    assert capacity.network_failure(0.3, heads=2, layers=3) == pytest.approx(1 - 0.91**3)
    assert capacity.chained_noise(9, 1, d_k=4) == pytest.approx(2.0)


def test_correlated_keys_have_their_cosines():
    x = np.asarray(conditioning.correlated_sphere(jax.random.key(1), (400, 32), 0.4))
    cosines = (x @ x.T)[np.triu_indices(400, 1)]
    assert cosines.mean() == pytest.approx(0.4, abs=0.01)
    assert (cosines**2).mean() == pytest.approx(
        capacity.correlated_noise(2, d_k=32, rho=0.4), rel=0.03
    )


def test_protocols_and_strengths():
    for name in conditioning.PROTOCOLS:
        trials = conditioning.protocol(name, 4)
        assert len(trials.cs) == len(trials.us)
        assert set(np.unique(trials.us)) <= {0.0, 1.0}
    blocking = conditioning.protocol("blocking", 10)
    strength = memory.protocol_strength(blocking.cs, blocking.us[:, 0], alpha=0.3)
    # The surprise that is left, 0.7^10, is shared by both stimuli from then on.
    assert strength[-1, 1] == pytest.approx(0.7**10 * (1 - 0.4**10) / 2)


def test_bad_input_is_refused(plain_checks):
    test, cs, us, _ = draw()
    with pytest.raises(ValueError, match="rule: expected one of"):
        memory.condition(test, cs, us, rule="skinner")
    with pytest.raises(ValueError, match=r"us: expected shape \[b=2, t=12"):
        memory.condition(test, cs, us[:, 1:])
    with pytest.raises(ValueError, match="name: expected one of"):
        conditioning.protocol("sensitisation")
    with pytest.raises(ValueError, match="trials: expected at least 1"):
        conditioning.protocol("blocking", 0)


def test_error_of_the_delta_rule_by_age_against_simulation():
    """Keys and values drawn from the sphere: within five standard errors at every age."""
    d, pairs, trials = 16, 12, 4_000
    rng = np.random.default_rng(0)
    keys, values = rng.normal(size=(2, trials, pairs, d))
    keys /= np.linalg.norm(keys, axis=-1, keepdims=True)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    memory = np.zeros((trials, d, d))
    for n in range(pairs):
        told = np.einsum("rde,rd->re", memory, keys[:, n])
        memory += np.einsum("rd,re->rde", keys[:, n], values[:, n] - told)
    read = np.einsum("rde,rnd->rne", memory, keys)
    error = ((read - values) ** 2).sum(-1)[:, ::-1]  # by age
    margin = 5 * error.std(0) / trials**0.5
    difference = np.abs(capacity.delta_error(pairs, d_k=d) - error.mean(0))
    assert (difference <= margin + 1e-12).all()
