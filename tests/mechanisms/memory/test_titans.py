"""Titans' memory: its definition, what it reduces to, and how it is combined with attention."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.attention import attend, masks
from jattn.attention.positions import rotary
from jattn.mechanisms import zoo
from jattn.mechanisms.layers.heads import merge_heads, qkv
from jattn.mechanisms.layers.norms import rms_norm, unit_norm
from jattn.mechanisms.memory.linear_memory import linear_memory
from jattn.mechanisms.memory.networks import network, network_init
from jattn.mechanisms.memory.neural_memory import (
    memory_step,
    neural_memory,
    start,
)
from jattn.mechanisms.memory.window_attention import window_attention
from jattn.recurrence import recur

B, T, H, D = 2, 7, 2, 3
window = jax.jit(window_attention, static_argnames=("window", "rotate"))
matrices = jax.jit(linear_memory, static_argnames="refresh")
networks = jax.jit(
    functools.partial(neural_memory, apply_fn=network),
    static_argnames=("chunk", "refresh", "read"),
)


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.fixture(scope="module")
def case():
    """Query, key, value; step size, forgetting and momentum; a matrix and a network a head."""
    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(0), 6)
        query, key, value = jax.random.normal(keys[0], (3, B, T, H, D))
        rates = jax.random.uniform(keys[1], (3, B, T, H), maxval=0.5)
        matrix = {"weights": [jax.random.normal(keys[2], (H, D, D))]}
        deep = jax.vmap(lambda k: network_init(k, D, expansion=2))(jax.random.split(keys[3], H))
    return (unit_norm(query), unit_norm(key), value), tuple(rates), matrix, deep


def naive(params0, qkv, rates, refresh):
    """The recurrence as it is written, one sequence and head after the other."""

    def loss(params, key, value):
        return jnp.sum((network(params, key) - value) ** 2)

    @jax.jit
    def update(weights, surprise, anchor, key, value, step_size, forget, momentum):
        gradient = jax.grad(loss)(anchor, key, value)
        surprise = jax.tree.map(lambda s, g: momentum * s - step_size * g, surprise, gradient)
        return jax.tree.map(lambda w, s: (1 - forget) * w + s, weights, surprise), surprise

    out = np.zeros(qkv[2].shape)
    for b in range(B):
        for h in range(H):
            weights = jax.tree.map(lambda x: x[h], params0)  # noqa: B023
            surprise = jax.tree.map(jnp.zeros_like, weights)
            anchor = weights
            for t in range(T):
                if t % refresh == 0:
                    anchor = weights
                query, key, value = (x[b, t, h] for x in qkv)
                weights, surprise = update(
                    weights, surprise, anchor, key, value, *(r[b, t, h] for r in rates)
                )
                out[b, t, h] = network(weights, query)
    return out


@pytest.mark.parametrize("refresh", [1, 3])
def test_blocks_steps_and_closed_form_are_the_loop(case, refresh):
    qkv, rates, matrix, deep = case
    for params0 in (matrix, deep):
        expected = naive(params0, qkv, rates, refresh)
        out, *_ = networks(params0, *qkv, *rates, refresh=refresh)
        close(out, expected)
    expected = naive(matrix, qkv, rates, refresh)
    out, weights, surprise = matrices(matrix["weights"][0], *qkv, *rates, refresh=refresh)
    close(out, expected)
    assert weights.shape == surprise.shape == (B, H, D, D)


@pytest.mark.parametrize("refresh", [4, 130])
def test_blocks_without_weights_a_token_are_those_with_them(x64, refresh):
    """Any function takes the general way; sizes of each leaf, rates of channels, clipped; and one
    gradient point for more tokens than are in a block."""
    length = 9 if refresh == 4 else 140
    keys = jax.random.split(jax.random.key(5), 4)
    query, key, value = jax.random.normal(keys[0], (3, 1, length, 1, D), jnp.float64)
    params0 = jax.vmap(lambda k: network_init(k, D, expansion=2))(keys[1][None])
    params0 = jax.tree.map(lambda x: x.astype(jnp.float64), params0)
    rates = jax.random.uniform(keys[2], (4, 1, length, 1), jnp.float64, maxval=0.1)
    channels = jax.random.uniform(keys[3], (1, length, 1, D), jnp.float64, maxval=0.1)
    steps = {"weights": [rates[0], rates[1]], "gain": rates[2]}
    forget = {"weights": [rates[1], channels], "gain": channels}
    inputs = (query, unit_norm(key), value, steps, forget, rates[3])
    options: dict[str, Any] = dict(refresh=refresh, clip=1.0)
    run = jax.jit(functools.partial(neural_memory, **options), static_argnames="apply_fn")
    found = run(params0, *inputs, apply_fn=network)
    general = run(params0, *inputs, apply_fn=lambda w, x: network(w, x))
    jax.tree.map(lambda a, b: close(a, b, 1e-10), found, general)


@pytest.mark.parametrize("read", ["inclusive", "completed"])
def test_updates_of_several_tokens(case, read):
    """Blocks against steps, with an update that is short of tokens at the end."""
    qkv, rates, _, deep = case
    options = dict(chunk=2, refresh=4, read=read)
    forget, momentum = (r[:, ::2] for r in rates[1:])
    out, weights, surprise = networks(deep, *qkv, rates[0], forget, momentum, **options)

    @jax.jit
    def steps(params0, *inputs):
        step = lambda state, token: memory_step(state, *token, apply_fn=network, **options)
        return jax.lax.scan(step, start(params0), inputs)

    spread = lambda r: jnp.repeat(r, 2, 1)[:, :T]
    arrays = (*qkv, rates[0], spread(forget), spread(momentum))
    for b, h in ((0, 0), (1, 1)):
        state, expected = steps(
            jax.tree.map(lambda x: x[h], deep),  # noqa: B023
            *(x[b, :, h] for x in arrays),
        )
        close(out[b, :, h], expected)
        jax.tree.map(lambda x, y: close(x[b, h], y), weights, state.weights)  # noqa: B023
        jax.tree.map(lambda x, y: close(x[b, h], y), surprise, state.momentum)  # noqa: B023


def test_without_momentum_a_matrix_is_the_gated_delta_rule(case):
    (query, key, value), (step_size, forget, _), matrix, _ = case
    keep = 1 - forget
    initial = jnp.broadcast_to(matrix["weights"][0], (B, H, D, D))
    expected = recur(
        query, key, keep[..., None] * value, decay=jnp.log(keep), beta=2 * step_size / keep,
        initial_state=initial, mode="scan",
    )  # fmt: skip
    zero = jnp.zeros_like(forget)
    rates = (step_size, forget)
    for out in (
        networks(matrix, query, key, value, *rates, zero)[0],
        matrices(matrix["weights"][0], query, key, value, *rates)[0],
        matrices(matrix["weights"][0], query, key, value, *rates, zero)[0],
    ):
        close(out, expected)


def test_half_a_step_stores_the_value_whole(case):
    (_, key, value), (_, zero, _), matrix, _ = case
    zero = jnp.zeros_like(zero)
    out, *_ = matrices(matrix["weights"][0], key, key, value, zero + 0.5, zero, zero)
    close(out, value)


def test_without_steps_the_memory_fades_and_without_a_past_it_is_the_last_token(case):
    qkv, (step_size, forget, _), _, deep = case
    zero = jnp.zeros_like(forget)
    _, weights, _ = networks(deep, *qkv, zero, forget, zero, refresh=4)
    left = jnp.prod(1 - forget, 1)
    jax.tree.map(
        lambda w, w0: close(w, w0 * left.reshape(*left.shape, *[1] * (w0.ndim - 1))), weights, deep
    )
    # With a = 1 and no momentum, M_t is one gradient at the block's anchor; there, that of token t.
    ones = zero + 1
    run = lambda value: networks(deep, qkv[0], qkv[1], value, step_size, ones, zero, refresh=8)[0]
    close(run(qkv[2])[:, -1], run(qkv[2].at[:, :-1].add(5.0))[:, -1])
    assert np.abs(run(qkv[2]) - run(qkv[2].at[:, -1].add(5.0)))[:, -1].max() > 0.1


@pytest.mark.parametrize("refresh", [3, None])
def test_going_on_from_a_border_is_one_pass(x64, case, refresh):
    """In float64, where what rounding leaves in numbers that grow to 48 is small."""
    qkv, rates, matrix, deep = jax.tree.map(lambda x: x.astype(jnp.float64), case)
    run = lambda arrays, initial: networks(deep, *arrays, refresh=refresh, initial=initial)
    arrays = (*qkv, *rates)
    whole, *end = run(arrays, None)
    first, *state = run(tuple(x[:, :3] for x in arrays), None)
    rest, *last = run(tuple(x[:, 3:] for x in arrays), tuple(state))
    close(jnp.concatenate([first, rest], 1), whole, 1e-12)
    jax.tree.map(lambda a, b: close(a, b, 1e-12), last, end)
    if refresh is not None:
        memory = lambda arrays, initial: matrices(
            matrix["weights"][0], *arrays, refresh=refresh, initial=initial
        )
        whole, *end = memory(arrays, None)
        first, *state = memory(tuple(x[:, :3] for x in arrays), None)
        rest, *last = memory(tuple(x[:, 3:] for x in arrays), tuple(state))
        close(jnp.concatenate([first, rest], 1), whole, 1e-12)
        jax.tree.map(lambda a, b: close(a, b, 1e-12), last, end)


@pytest.mark.parametrize("prefix", [0, 2])
def test_window_attention_is_attention_with_a_band(case, prefix):
    (query, key, value), *_ = case
    size, real = 3, jnp.arange(T) != 4
    first = (key[:, :prefix] * 2, value[:, :prefix] * 2)
    out = window(query, key, value, *first, window=size, mask=jnp.broadcast_to(real, (B, T)))
    keys, values = (jnp.concatenate(pair, 1) for pair in zip(first, (key, value), strict=True))
    band = masks.sliding_window(size, offset=prefix) | masks.prefix(prefix)
    seen = jnp.concatenate([jnp.ones(prefix, bool), real])
    close(out, attend(query, keys, values, mask=band & masks.from_array(seen[None, None, None])))


def made(name, **options):
    mixer = zoo.make(name, dim=8, heads=2, causal=True, **options)
    with jax.enable_x64(False):
        params = mixer.init(jax.random.key(0))
        return mixer, params, jax.random.normal(jax.random.key(1), (B, T, 8))


def test_a_gate_left_alone_leaves_window_attention():
    mixer, params, x = made("titans_mag", window=3, persistent=2)
    # A memory that answers nothing opens the gate half.
    params["memory"]["output"] = jnp.zeros_like(params["memory"]["output"])
    first = jnp.broadcast_to(params["persistent"], (B, 2, 8))
    _, *prefix = qkv(params, first, first, 2, 2)
    near = window(*qkv(params, x, x, 2, 2), *prefix, window=3, rotate=True)
    expected = rms_norm(merge_heads(near)) @ params["output"] / 2
    close(jax.jit(mixer.apply)(params, x), expected)


@pytest.mark.parametrize("position", [5, 6])
def test_windows_rotate_by_distance(case, position):
    """Without a prefix, turned by block or from the sequence's start, products are the same."""
    key = jax.random.key(3)
    query, keys, value = jax.random.normal(key, (3, 1, position + 1, 2, 4))
    none = keys[:, :0]
    out = window(query, keys, value, none, none, window=3, rotate=True)
    expected = window(rotary(query), rotary(keys), value, none, none, window=3)
    close(out, expected)


def test_segments_meet_through_the_memory_only():
    mixer, params, x = made("titans_mac", segment=3, convolution=0)
    moved = x.at[:, 1].add(1.0)
    apply = jax.jit(mixer.apply)
    assert np.abs(apply(params, x) - apply(params, moved))[:, 3:].max() > 1e-3
    params["memory"]["rates_bias"] = jnp.full_like(params["memory"]["rates_bias"], -100.0)
    gap = np.abs(apply(params, x) - apply(params, moved))
    close(gap[:, 3:], 0)
    assert gap[:, 2].max() > 1e-3


STREAMED = {
    "matrix": ("titans_memory", {"refresh": 3, "depth": 1, "forgetting": "channel"}),
    "clipped": ("titans_memory", {"refresh": 3, "clip": 0.5, "forgetting": "channel"}),
    "plain": ("titans_memory", {"residual_norm": False, "forgetting": "none", "momentum": False}),
    "mac": ("titans_mac", {"segment": 3}),
    "recalls": ("titans_mac", {"segment": 4, "refresh": 2, "memory_tokens": 3}),
    "mag": ("titans_mag", {"window": 3, "refresh": 4}),
    "mal": ("titans_mal", {"window": 3, "refresh": 4, "persistent": 0}),
}


@pytest.mark.parametrize("name", STREAMED)
def test_steps_across_blocks_and_a_state_that_does_not_grow(name):
    """Conformance has sequences of one block; here steps cross blocks, windows and segments."""
    name, options = STREAMED[name]
    mixer, params, x = made(name, **options)
    assert mixer.init_state is not None
    assert mixer.step is not None
    state = mixer.init_state(params, B, T)
    longer = jax.eval_shape(lambda: mixer.init_state(params, B, 100 * T))  # type: ignore
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(lambda s: s.shape, longer)

    @jax.jit
    def decode(state, x):
        def step(state, token):
            y, state = mixer.step(params, token, state)  # type: ignore
            return state, y

        return jnp.moveaxis(jax.lax.scan(step, state, jnp.moveaxis(x, 1, 0))[1], 0, 1)

    close(decode(state, x), jax.jit(mixer.apply)(params, x))


def test_errors(plain_checks, case):
    qkv, rates, matrix, _ = case
    for message, options in {
        "chunk: expected at least 1": {"chunk": 0},
        "refresh: expected None or a multiple of chunk=2, got 3": {"chunk": 2, "refresh": 3},
        "read: expected one of": {"read": "never"},
        r"forget: expected shape \[b=2, n=4": {"chunk": 2, "refresh": 2},
    }.items():
        with pytest.raises(ValueError, match=message):
            neural_memory(matrix, *qkv, *rates, apply_fn=network, **options)
    with pytest.raises(ValueError, match="refresh: expected at least 1, got 0"):
        linear_memory(matrix["weights"][0], *qkv, *rates, refresh=0)
    with pytest.raises(ValueError, match="window: expected at least 1"):
        zoo.make("titans_mag", dim=4, heads=2, causal=True, window=0)
    with pytest.raises(ValueError, match="segment: expected at least 1"):
        zoo.make("titans_mac", dim=4, heads=2, causal=True, segment=0)
    with pytest.raises(ValueError, match="depth: expected at least 1"):
        network_init(jax.random.key(0), 4, depth=0)
