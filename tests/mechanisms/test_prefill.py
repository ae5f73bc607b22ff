"""Reading many tokens into an empty state, and going on from there, is reading them all at once."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import gated, mixture, routed, short_convolution
from jattn.mechanisms.mixer import Mixer, prefill

B, T, M, H, GIVEN, REAL = 2, 6, 8, 2, 4, 3
X = jax.random.normal(jax.random.key(1), (B, T, M))
STREAMING = [name for name in zoo.names(kind="mixer") if zoo.info(name).streaming]
MADE = {name: zoo.make(name, dim=M, heads=H, causal=True) for name in STREAMING}
SOFTMAX, RECURRENT = MADE["softmax_attention"], MADE["retention"]
ROTARY = zoo.make("softmax_attention", dim=M, heads=H, causal=True, rotary=True, window=3)
COMBINED: dict[str, Mixer] = {
    "rotary, window": ROTARY,
    "gated": gated(RECURRENT, dim=M, heads=H),
    "gated after": gated(SOFTMAX, dim=M, heads=H, position="G5"),
    "routed": routed(ROTARY, dim=M, heads=H),
    "mixture": mixture({"a": SOFTMAX, "b": RECURRENT, "c": MADE["gated_mlp"]}, dim=M),
    "short convolution": short_convolution(SOFTMAX, width=3),
    "short, recurrent": short_convolution(MADE["delta_rule"], width=5),
    "short, gated": gated(short_convolution(RECURRENT), dim=M, heads=H),
}


# What steps anyway steps in the same loop for all: one is enough for every day.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if mixer.prefill is None else [])
        for name, mixer in (MADE | COMBINED).items()
        if name != "gated_mlp"
    ]
    + ["gated_mlp"],
)
def test_going_on_from_a_prompt_is_the_whole(name):
    mixer = (MADE | COMBINED)[name]
    make_state, one_step = mixer.init_state, mixer.step
    assert make_state is not None
    assert one_step is not None
    params = jax.jit(mixer.init)(jax.random.key(0))

    @jax.jit
    def read(params, x, length):
        # What lies behind the real tokens leaves no trace.
        prompt = jnp.where(jnp.arange(T)[:, None] < length, x, 7.0)[:, :GIVEN]
        first, state = prefill(mixer, params, prompt, make_state(params, B, T), length)

        def step(state, token):
            y, state = one_step(params, token, state)
            return state, y

        rest = jax.lax.scan(step, state, jnp.moveaxis(x[:, REAL:], 1, 0))[1]
        return mixer.apply(params, x), first[:, :REAL], jnp.moveaxis(rest, 0, 1)

    whole, first, rest = read(params, X, REAL)
    scale = max(1.0, float(jnp.abs(whole).max()))
    np.testing.assert_allclose(first, whole[:, :REAL], atol=2e-5 * scale)
    np.testing.assert_allclose(rest, whole[:, REAL:], atol=2e-5 * scale)


WINDOWED = [
    name for name in STREAMING if "window" in inspect.signature(zoo.info(name).make).parameters
]


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_stream_as_whole_sequences(name):
    mixer = zoo.make(name, dim=M, heads=H, causal=True, window=3)
    make_state, one_step = mixer.init_state, mixer.step
    assert make_state is not None
    assert one_step is not None
    params = jax.jit(mixer.init)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(2), (B, 9, M))

    @jax.jit
    def read(params, x):
        def step(state, token):
            y, state = one_step(params, token, state)
            return state, y

        rest = jax.lax.scan(step, make_state(params, B, 9), jnp.moveaxis(x, 1, 0))[1]
        return mixer.apply(params, x), jnp.moveaxis(rest, 0, 1)

    whole, steps = read(params, x)
    np.testing.assert_allclose(steps, whole, atol=2e-5 * max(1.0, float(jnp.abs(whole).max())))


def test_what_does_not_stream_is_named():
    mixer = zoo.make("softmax_attention", dim=M, heads=H)
    with pytest.raises(ValueError, match="expected one with a step form"):
        prefill(mixer, mixer.init(jax.random.key(0)), X, None)


def test_tokens_beyond_the_room_are_refused_where_that_can_be_said():
    params = SOFTMAX.init(jax.random.key(0))
    assert SOFTMAX.init_state is not None
    assert SOFTMAX.step is not None
    _, state = prefill(SOFTMAX, params, X, SOFTMAX.init_state(params, B, T))
    with pytest.raises(ValueError, match="state: expected room for one more token, all 6 are"):
        SOFTMAX.step(params, X[:, 0], state)
    with pytest.raises(ValueError, match="x: expected at most the state's 5 tokens, got 6"):
        prefill(SOFTMAX, params, X, SOFTMAX.init_state(params, B, T - 1))


def test_a_window_keeps_no_more_than_it_sees():
    params = jax.jit(ROTARY.init)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(2), (B, 11, M))
    assert ROTARY.init_state is not None
    assert ROTARY.step is not None
    state = ROTARY.init_state(params, B, 10_000)
    assert state.key.shape == (B, 3, H, M // H)
    # A room of fewer tokens than the window is no ring: what does not fit is refused.
    assert ROTARY.init_state(params, B, 2).key.shape[1] == 2

    def step(state, token):
        y, state = ROTARY.step(params, token, state)
        return state, y

    state, read = jax.lax.scan(step, state, jnp.moveaxis(x, 1, 0))
    whole = ROTARY.apply(params, x)
    np.testing.assert_allclose(jnp.moveaxis(read, 0, 1), whole, atol=2e-5)
    assert int(state.position) == 11
