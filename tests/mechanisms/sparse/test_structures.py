"""What is decided for layers, steps, turns and conditions: limits and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import attend, masks
from jattn.mechanisms.sparse import (
    flux_attention,
    isolation_attention,
    position_aligned_attention,
    recycled_attention,
    role_aware_attention,
    token_budget_attention,
    turn_masks,
)

rng = np.random.default_rng(0)
normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
Q, K, V = normal(1, 12, 4, 4), normal(1, 12, 2, 4), normal(1, 12, 2, 4)
close = lambda a, b, atol=1e-5: np.testing.assert_allclose(a, b, atol=atol)
CAUSAL = attend(Q, K, V, mask=masks.causal())


def test_flux_mixes_its_branches():
    run = lambda z: flux_attention.flux_attention(
        Q, K, V, jnp.array([z]), block=3, sinks=1, local=1
    )
    full, sparse = run(1.0), run(0.0)
    close(full, CAUSAL)
    close(run(0.25), 0.25 * full + 0.75 * sparse)
    local = flux_attention.flux_attention(Q, K, V, jnp.zeros(1), block=3, sinks=0, local=4)
    close(local, CAUSAL)


def test_flux_begins_full_and_its_choice_has_the_soft_gradient():
    params = flux_attention.init(jax.random.key(0), head_dim=4)
    logits = flux_attention.route(params, normal(3, 2, 4))
    close(jax.nn.softmax(logits)[:, 1], jax.nn.sigmoid(4.5))
    logits = jnp.array([[0.3, -0.2]])
    chosen = lambda x: flux_attention.straight_through(x, 1.5).sum()
    assert float(chosen(logits)) == 0.0
    soft = lambda x: jax.nn.softmax(x / 1.5)[:, 1].sum()
    close(jax.grad(chosen)(logits), jax.grad(soft)(logits))
    middle = normal(1, 12, 4, 4)
    moved = middle.at[:, 4:8].set(middle[:, jnp.array([7, 5, 4, 6])])
    pooled = [flux_attention.pool_queries(x, jnp.array([[1, 10]]), 3) for x in (middle, moved)]
    close(pooled[0], pooled[1])


def run_steps(stride, count, similarity=None):
    def step(state, t):
        out, state = recycled_attention.recycled_step(
            Q[:, t], K, V, t + 1, state, stride=stride, count=count, similarity=similarity
        )
        return state, (out, state.keep)

    state = recycled_attention.empty(Q[:, 0], K)
    _, (out, keep) = jax.jit(lambda: jax.lax.scan(step, state, jnp.arange(12)))()
    return jnp.swapaxes(out, 0, 1), keep


def test_recycled_steps():
    close(run_steps(1, 3)[0], CAUSAL)
    close(run_steps(4, 12)[0], CAUSAL)
    close(run_steps(4, 3, similarity=2.0)[0], CAUSAL)
    out, keep = run_steps(4, 3)
    # Steps 0, 4, 8 are full; step 6 reads what step 4 kept, and what came since.
    close(out[:, jnp.array([0, 4, 8])], CAUSAL[:, jnp.array([0, 4, 8])])
    assert keep[4].sum(-1).tolist() == [[3, 3]]
    read = keep[4] | ((jnp.arange(12) > 4) & (jnp.arange(12) <= 6))
    expected = attend(Q[:, 6:7], K, V, mask=jnp.repeat(read, 2, axis=1)[:, :, None])
    close(out[:, 6:7], expected)


def test_recovered_mass_grows_with_what_is_kept():
    weights = jax.nn.softmax(normal(1, 4, 12))
    order = jnp.argsort(-weights[:, ::2], axis=-1)
    mass = [
        recycled_attention.recovered_mass(weights[:, ::2], jnp.argsort(order, axis=-1) < n)
        for n in (1, 4, 12)
    ]
    assert (mass[0] < mass[1]).all()
    close(mass[2], 1)


def test_token_budgets():
    for mu, sigma in ((1.0, 0.7), (2.0, 3.0)):
        assert token_budget_attention.budget(8, mu, sigma).sum() == pytest.approx(1)
    shares = token_budget_attention.budget(4, 2.0, 0.0)
    redundant = token_budget_attention.redundancy(K, 4)
    kept = token_budget_attention.counts(redundant, shares)
    assert (kept == 4).all()
    importance = token_budget_attention.importance(Q, K, 4)
    keep = token_budget_attention.keep_tokens(importance, kept, 4)
    close(token_budget_attention.token_budget_attention(Q, K, V, keep, block=4), CAUSAL)
    few = token_budget_attention.counts(redundant, np.array([1 / 3, 1 / 3, 1 / 3]))
    assert sorted(few[0, 0].tolist()) == [1, 2, 4]
    keep = token_budget_attention.keep_tokens(importance, few, 4)
    assert keep.sum(-1).tolist() == [[7, 7]]
    # The most redundant block keeps the fewest.
    assert int(few[0, 0, int(redundant[0, 0].argmax())]) == 1
    out = token_budget_attention.token_budget_attention(Q, K, V, keep, block=4)
    near = np.arange(12)[:, None] // 4 - np.arange(12) // 4 <= 1
    seen = (jnp.repeat(keep, 2, axis=1)[:, :, None] | near) & np.tril(np.ones((12, 12), bool))
    close(out, attend(Q, K, V, mask=seen, implementation="reference"))
    same = jnp.ones((1, 4, 1, 3))
    close(token_budget_attention.redundancy(same, 4), 1)


def test_turns():
    answers = jnp.array([[False] * 3 + [True] * 3 + [False] * 3 + [True] * 3])
    mask = turn_masks.turn_mask(answers)
    out = attend(Q, K, V, mask=mask)
    shuffle = jnp.array([2, 0, 1, *range(3, 12)])
    moved = attend(Q[:, shuffle], K[:, shuffle], V[:, shuffle], mask=mask)
    close(moved[:, 3:], out[:, 3:])
    close(moved[:, :3], out[:, shuffle[:3]])
    close(attend(Q, K, V, mask=turn_masks.turn_mask(jnp.ones_like(answers))), CAUSAL)
    close(attend(Q, K, V, mask=turn_masks.turn_mask(jnp.zeros_like(answers))), attend(Q, K, V))
    real = jnp.arange(12)[None] < 9
    hidden = attend(Q, K, V, mask=turn_masks.turn_mask(answers, real))
    assert (hidden[:, 9:] == 0).all()


def test_roles():
    role = jnp.array([[0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 1, 1]])
    turn = jnp.array([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]])
    run = lambda fetched, value=V, **more: role_aware_attention.role_aware_attention(
        Q, K, value, role, turn, jnp.array([fetched]), **more
    )
    close(run([True, True, True]), CAUSAL)
    dropped = run([True, False, True])
    close(run([True, False, True], V.at[:, 6:10].add(1.0))[:, 10:], dropped[:, 10:])
    ones = jnp.where(role == 0, 1.0, 0.0)[..., None, None] * jnp.ones_like(V)
    mass = [run([True] * 3, ones, alpha=alpha)[:, 5:].mean() for alpha in (0.0, 2.0, 30.0)]
    assert mass[0] < mass[1] < mass[2]
    close(mass[2], 1)
    lowered = run([True] * 3, 1 - ones, beta=30.0)
    assert (lowered <= run([True] * 3, 1 - ones) + 1e-6).all()


def test_isolation():
    labels = jnp.array([[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]])
    run = lambda value, labels=labels: isolation_attention.isolation_attention(Q, K, value, labels)
    close(run(V, jnp.zeros_like(labels)), attend(Q, K, V))
    changed = run(V.at[:, 8:].add(1.0))
    np.testing.assert_array_equal(changed[:, 4:8], run(V)[:, 4:8])
    swapped = jnp.array([0, 2, 1])[labels]
    close(run(V, swapped), run(V))
    reference = K[:, :3], V[:, :3], jnp.array([[1, 1, 2]])
    out = isolation_attention.isolation_attention(Q, K, V, labels, reference=reference)
    close(out[:, :4], run(V)[:, :4])
    image = normal(4, 5, 2)
    whole = (0, 0, 4, 5)
    np.testing.assert_array_equal(
        isolation_attention.reposition(image, whole, whole, (4, 5)), image
    )
    constant = jnp.ones((2, 2, 1))
    twice = isolation_attention.reposition(constant, (0, 0, 2, 2), (0, 0, 4, 4), (4, 4))
    back = isolation_attention.reposition(twice, (0, 0, 4, 4), (0, 0, 2, 2), (2, 2))
    close(back, constant)
    with pytest.raises(ValueError, match="target: expected a box inside"):
        isolation_attention.reposition(constant, (0, 0, 2, 2), (3, 3, 2, 2), (4, 4))


def test_positions_of_conditions():
    condition = normal(1, 24, 2, 4), normal(1, 24, 2, 4)
    run = lambda key, value, radius=0: position_aligned_attention.position_aligned_attention(
        Q, K, V, key, value, shape=(3, 4), radius=radius
    )
    out = run(*condition)
    # A condition's cell speaks to the picture's cell at its own place alone.
    changed = run(condition[0], condition[1].at[:, 12 + 5].add(1.0))
    different = np.flatnonzero(np.abs(np.asarray(changed - out)).max((0, 2, 3)) > 0)
    assert different.tolist() == [5]
    joint = [jnp.concatenate(pair, axis=1) for pair in zip((K, V), condition, strict=True)]
    close(run(*condition, radius=4), attend(Q, *joint))
    pairs = int(position_aligned_attention.aligned_mask((3, 4), 2, 1).dense(12, 24).sum())
    assert pairs == 2 * (3 * 3 - 2) * (4 * 3 - 2)
    weights = jax.nn.softmax(normal(1, 2, 6, 5))
    assert position_aligned_attention.keyword_scope(weights, [1, 2], 0.0).all()
    density = position_aligned_attention.timestep_density(jnp.arange(4.0), 2 * jnp.arange(4.0), 0.3)
    assert float(density.sum()) == pytest.approx(1)
    uniform = position_aligned_attention.timestep_density(jnp.ones(4), jnp.arange(4.0), 1.0)
    close(uniform, 0.25)
