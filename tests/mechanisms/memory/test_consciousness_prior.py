"""The bottleneck: what is selected and what learns, the verifier, and the working memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.attention import attend
from jattn.mechanisms import zoo
from jattn.mechanisms.memory.consciousness_prior import (
    focus_of,
    select_bottleneck,
    verifier_loss,
    verify,
)

B, N, M, D, E = 3, 6, 2, 4, 5


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    return draw(B, N, D), draw(B, N, E), focus_of(draw(B, M, D))


@functools.partial(jax.jit, static_argnames=("size", "straight_through"))
def select(*arrays, size=M, **options):
    return select_bottleneck(*arrays, size=size, **options)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("straight_through", [False, True])
def test_as_many_distinct_elements_as_places_and_weights_sum_to_one(case, straight_through):
    key, value, focus = case
    thought = select(*case, straight_through=straight_through)
    scores = jnp.einsum("bnd,bd->bn", key, focus) * D**-0.5
    np.testing.assert_array_equal(thought.index, jnp.argsort(-scores)[:, :M])
    close(thought.weights.sum(-1), 1.0)
    assert ((np.abs(thought.weights) > 1e-6).sum(-1) == M).all()
    rows = jnp.arange(B)[:, None]
    close(thought.key, key[rows, thought.index])
    close(thought.value, value[rows, thought.index])
    close(thought.score, scores[rows, thought.index])


def test_all_elements_are_plain_attention(case):
    key, value, focus = case
    thought = select(*case, size=N + 3)
    expected = attend(focus[:, None, None], key[:, :, None], value[:, :, None])[:, 0, 0]
    close(jnp.einsum("bn,bne->be", thought.weights, value), expected)
    assert thought.held.all()


def test_what_is_left_out_gets_no_gradient_of_values_but_learns_to_be_chosen(case):
    key, value, focus = case
    target = jnp.ones((B, M, E))

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(straight, key, value):
        def loss(key, value):
            thought = select(key, value, focus, straight_through=straight)
            read = jnp.einsum("bn,bne->be", thought.weights, value)
            return ((thought.value - target) ** 2).sum() + (read**2).sum()

        return jax.grad(loss, (0, 1))(key, value)

    out = np.ones((B, N), bool)
    np.put_along_axis(out, np.asarray(select(*case).index), False, 1)
    for straight in (False, True):
        by_key, by_value = (np.abs(np.asarray(g)) for g in gradients(straight, key, value))
        assert not by_value[out].any()
        assert by_value[~out].any(-1).all()
        assert by_key[out].any() == straight


def test_elements_have_no_order(case):
    key, value, focus = case
    order = jnp.array([3, 0, 5, 1, 4, 2])
    one, other = select(*case), select(key[:, order], value[:, order], focus)
    close(one.value, other.value)
    close(one.weights[:, order], other.weights)


def test_noise_samples_without_replacement_and_vanishes_with_its_temperature(case):
    key, value, focus = case
    scores = jnp.einsum("bnd,bd->bn", key, focus)[0] * D**-0.5
    gumbel = jax.random.gumbel(jax.random.key(0), (4000, N))
    one = lambda noise: select(key[0], value[0], focus[0], noise=noise).index
    index = jax.jit(jax.vmap(one))(gumbel)
    assert (index[:, 0] != index[:, 1]).all()
    rate = np.bincount(index[:, 0], minlength=N) / len(index)
    close(rate, jax.nn.softmax(scores), 0.03)
    np.testing.assert_array_equal(one(1e-4 * gumbel[0]), one(None))


def test_what_is_not_real_is_not_selected(case):
    real = jnp.zeros((B, N), bool).at[:, 2].set(True)
    thought = select(*case, real=real)
    np.testing.assert_array_equal(thought.held, [[True, False]] * B)
    np.testing.assert_array_equal(thought.index[:, 0], 2)
    close(thought.weights, real)


def test_a_thought_holds_most_where_its_pair_is(case):
    key, value, _ = case
    # Unit keys with large scores: reading is looking up.
    key = key / jnp.linalg.norm(key, axis=-1, keepdims=True)
    run = jax.jit(functools.partial(verify, scale=200.0))
    close(run(key, value, key[:, :M], value[:, :M]), 1.0, 1e-3)
    assert (run(key, value, key[:, :M], value[:, M : 2 * M]) < 0.99).all()
    close(run(key, value, key[:, :M], -value[:, :M]), -1.0, 1e-3)
    loss = jax.jit(functools.partial(verifier_loss, scale=200.0))
    true = float(loss(key, value, key[:, :M], value[:, :M]))
    assert true < np.log(B) - 0.3
    assert true < float(loss(key, value, key[:, :M], jnp.roll(value[:, :M], 1, 0))) - 0.3


def test_enough_places_and_no_focus_are_softmax_attention():
    plain = zoo.make("softmax_attention", dim=8, heads=2)
    params = plain.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (B, N, 8))
    mixer = zoo.make("consciousness_prior", dim=8, heads=2, size=N)
    out = jax.jit(mixer.apply)(params | {"focus": jnp.zeros((2, 4))}, x)
    close(out, jax.jit(plain.apply)(params, x))


def test_working_memory_holds_the_nearest_to_its_focus():
    """Against a loop: heads of one dimension, whose thoughts can be listed."""
    length, size = 7, 2
    mixer = zoo.make("consciousness_prior", dim=2, heads=2, causal=True, size=size)
    params = mixer.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (1, length, 2))
    query, key, value = (np.asarray(x[0] @ params[n]) for n in ("query", "key", "value"))
    mixed = np.zeros((length, 2))
    for h in range(2):
        held: list[int] = []
        for t in range(length):
            focus = float(params["focus"][h, 0]) + (key[held, h].mean() if held else 0.0)
            scores = {j: focus * key[j, h] for j in [*held, t]}
            held = sorted(scores, key=scores.__getitem__, reverse=True)[:size]
            logits = np.array([query[t, h] * key[j, h] + scores[j] for j in held])
            weights = np.exp(logits - logits.max())
            mixed[t, h] = weights @ value[held, h] / weights.sum()
    close(jax.jit(mixer.apply)(params, x)[0], mixed @ params["output"])


@pytest.mark.parametrize("causal", [False, True])
def test_a_key_draws_the_selection(causal):
    mixer = zoo.make("consciousness_prior", dim=8, heads=2, causal=causal, size=2)
    params = mixer.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (1, 6, 8))
    apply = jax.jit(lambda key: mixer.apply(params, x, key=key))
    one, two = apply(jax.random.key(2)), apply(jax.random.key(3))
    np.testing.assert_array_equal(one, apply(jax.random.key(2)))
    assert np.abs(one - two).max() > 1e-3


def test_bad_sizes_are_named(plain_checks, case):
    key, value, focus = case
    for message, call in {
        "size: expected at least 1, got 0": lambda: select_bottleneck(*case, size=0),
        r"value: expected shape \[batch=3, n=6, e=5\], got \[3, 5, 5\]": lambda: select_bottleneck(
            key, value[:, 1:], focus, 2
        ),
        "focus: expected shape": lambda: select_bottleneck(key, value, focus[:, 1:], 2),
        "thought_value: expected shape": lambda: verify(key, value, key, value[:, :2]),
        "noise: expected at least 0, got -1": lambda: zoo.make(
            "consciousness_prior", dim=8, heads=2, noise=-1
        ),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
