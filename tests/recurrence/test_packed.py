"""Sequences in one row are sequences apart: values, states and gradients, by every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.recurrence import recur, recur_packed

T, H, D, E = 23, 4, 3, 5
ENDS = np.array([0, 7, 7, 8, 20])  # One is empty, and three tokens lie behind the last.
RULES = {
    "plain": (),
    "decay": ("decay",),
    "gated": ("channel_decay",),
    "delta": ("beta",),
    "gated delta": ("decay", "beta"),
    "erase": ("channel_decay", "beta", "erase_key"),
    "values": ("value_decay", "value_beta"),
}


def draw(rule: str):
    """Arrays of the engine, in float64; values are shared by pairs of heads."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape)
    key = normal(1, T, 2, D)
    arrays = {
        "query": normal(1, T, H, D),
        "key": key / np.linalg.norm(key, axis=-1, keepdims=True),
        "value": normal(1, T, 2, E),
        "initial_state": normal(len(ENDS) - 1, H, D, E),
    }
    own = {
        "decay": -rng.uniform(0, 1, (1, T, H)),
        "channel_decay": -rng.uniform(0, 1, (1, T, H, D)),
        "value_decay": -rng.uniform(0, 1, (1, T, H, E)),
        "beta": rng.uniform(0, 1, (1, T, H)),
        "value_beta": rng.uniform(0, 1, (1, T, H, E)),
        "erase_key": normal(1, T, 1, D) / 2,
    }
    names = {"channel_decay": "decay", "value_beta": "beta"}
    arrays |= {names.get(name, name): own[name] for name in RULES[rule]}
    return jax.tree.map(jnp.asarray, arrays)


def apart(arrays, with_state):
    outs, states = [], []
    for number, (start, end) in enumerate(zip(ENDS, [*ENDS[1:], T], strict=True)):
        cut = {n: a[:, start:end] for n, a in arrays.items() if n != "initial_state"}
        if with_state and number < len(ENDS) - 1:
            cut["initial_state"] = arrays["initial_state"][number][None]
        out, state = recur(**cut, mode="scan", return_state=True)
        outs.append(out)
        states.append(state)
    return jnp.concatenate(outs, 1), jnp.concatenate(states[:-1])


@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_it_is_the_sequences_apart(rule, with_state, x64):
    arrays = draw(rule)
    if not with_state:
        arrays.pop("initial_state")
    rng = np.random.default_rng(1)
    pull, pull_state = rng.normal(size=(1, T, H, E)), rng.normal(size=(len(ENDS) - 1, H, D, E))

    def packed(arrays, ends):
        given = dict(arrays)
        q, k, v = (given.pop(name) for name in ("query", "key", "value"))
        return recur_packed(q, k, v, ends, **given, chunk_size=8, return_state=True)

    def loss(run, *given):
        out, state = run(*given)
        return (out * pull).sum() + (state * pull_state).sum(), (out, state)

    # One program for boundaries that it does not know.
    got, want = (
        jax.jit(jax.value_and_grad(lambda *a, run=run: loss(run, *a), has_aux=True))(*given)
        for run, given in (
            (packed, (arrays, jnp.asarray(ENDS))),
            (lambda arrays: apart(arrays, with_state), (arrays,)),
        )
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), got, want)


def test_without_states_no_token_is_added():
    arrays = jax.tree.map(lambda x: x.astype(jnp.bfloat16), draw("gated delta"))
    arrays.pop("initial_state")
    q, k, v = (arrays.pop(name) for name in ("query", "key", "value"))
    out = recur_packed(q, k, v, ENDS, **arrays)
    assert out.dtype == jnp.bfloat16
    # The engine's own program, with the resets in its decays.
    decay = arrays["decay"].at[:, ENDS].set(-jnp.inf)
    np.testing.assert_array_equal(out, recur(q, k, v, decay=decay, beta=arrays["beta"]))


@pytest.mark.kernels
def test_the_kernel_serves():
    arrays = jax.tree.map(lambda x: x.astype(jnp.float32), draw("gated delta"))
    q, k, v = (arrays.pop(name) for name in ("query", "key", "value"))
    runs = [
        recur_packed(q, k, v, ENDS, **arrays, return_state=True, implementation=name)
        for name in ("pallas", "xla")
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cu_seqlens": jnp.array([0, 9, 7])}, r"from 0, not falling, up to t=23, got \[0, 9, 7\]"),
        ({"cu_seqlens": jnp.array([1, 9])}, "cu_seqlens: expected boundaries from 0"),
        ({"cu_seqlens": jnp.array([0])}, r"cu_seqlens: expected \[n \+ 1\] boundaries"),
        ({"cu_seqlens": jnp.array([0.0, 2.0])}, "cu_seqlens: expected an integer array"),
        ({"beta": jnp.ones((1, 3, H))}, r"beta: expected shape \[1, t=23, ...\], got \[1, 3, 4\]"),
        ({"initial_state": jnp.ones((3, H, D, E))}, r"initial_state: expected shape \[n=4"),
        ({"query": jnp.ones((2, T, H, D))}, r"query: expected shape \[b=1"),
    ],
)
def test_what_does_not_fit_is_named(plain_checks, change, message):
    arrays = jax.tree.map(lambda x: x.astype(jnp.float32), draw("plain"))
    with pytest.raises(ValueError, match=message):
        recur_packed(**(arrays | {"cu_seqlens": jnp.asarray(ENDS)} | change))
