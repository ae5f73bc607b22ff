"""The recurrent engine: every mode against the definition, values and gradients."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jattn.recurrence import recur
from jattn.recurrence.chunked import is_gentle

B, H, D, E = 2, 2, 8, 6
KINDS = [(decay, beta) for decay in (None, "head", "channel") for beta in (False, True)]
run = jax.jit(recur, static_argnames=("mode", "chunk_size", "return_state"))


def inputs(length, *, decay=None, beta=False, dtype: Any = np.float32, seed=0) -> dict[str, Any]:
    """Random inputs of all kinds: unit keys, decays from none to violent, some hard resets."""
    rng = np.random.default_rng(seed)
    key = rng.standard_normal((B, length, H, D))
    made = {
        "query": rng.standard_normal((B, length, H, D)),
        "key": key / np.linalg.norm(key, axis=-1, keepdims=True),
        "value": rng.standard_normal((B, length, H, E)),
        "initial_state": rng.standard_normal((B, H, D, E)),
    }
    if decay:
        shape = (B, length, H) if decay == "head" else (B, length, H, D)
        kind = rng.integers(0, 10, shape)  # mostly mild, some none, some -50, some resets
        mild = -rng.exponential(0.1, shape)
        made["decay"] = np.select([kind < 6, kind < 8, kind < 9], [mild, 0.0, -50.0], -np.inf)
    if beta:
        made["beta"] = rng.uniform(0, 1, (B, length, H))
    return {name: jnp.asarray(x, dtype) for name, x in made.items()}


def definition(query, key, value, initial_state, decay=None, beta=None):
    """The equations of the docstring, one batch entry, head and token at a time, in float64."""
    query, key, value, state = (
        np.asarray(x, np.float64) for x in (query, key, value, initial_state)
    )
    out, final = np.zeros(value.shape), np.zeros(state.shape)
    for b in range(value.shape[0]):
        for h in range(value.shape[2]):
            s = state[b, h]
            for t in range(value.shape[1]):
                if decay is not None:
                    keep = np.exp(np.asarray(decay[b, t, h], np.float64))
                    s = s * (keep[:, None] if keep.ndim else keep)
                k, write = key[b, t, h], value[b, t, h]
                if beta is not None:
                    write = float(beta[b, t, h]) * (write - s.T @ k)
                s = s + np.outer(k, write)
                out[b, t, h] = s.T @ query[b, t, h]
            final[b, h] = s
    return out, final


@pytest.mark.smoke
@pytest.mark.parametrize(("decay", "beta"), KINDS)
def test_modes_follow_the_definition(decay, beta):
    x = inputs(13, decay=decay, beta=beta)
    expected, final = definition(**x)
    for mode in ("scan", "chunk", "parallel"):
        out, state = run(**x, mode=mode, chunk_size=4, return_state=True)
        np.testing.assert_allclose(out, expected, atol=5e-6, rtol=2e-6, err_msg=mode)
        np.testing.assert_allclose(state, final, atol=5e-6, rtol=2e-6, err_msg=mode)


@pytest.mark.smoke
@pytest.mark.parametrize(("decay", "beta"), KINDS)
def test_modes_have_the_same_gradients(x64, decay, beta):
    x = inputs(9, decay=decay, beta=beta, dtype=np.float64)

    @partial(jax.jit, static_argnames="mode")
    @jax.grad
    def gradient(x, mode):
        out, state = recur(**x, mode=mode, chunk_size=4, return_state=True)
        weight = jnp.sin(jnp.arange(out.size)).reshape(out.shape)
        return (weight * out).sum() + (state**2).sum()

    expected = gradient(x, mode="scan")
    for mode in ("chunk", "parallel"):
        for name, g in gradient(x, mode=mode).items():
            assert g.dtype == np.float64
            assert np.isfinite(g).all()
            np.testing.assert_allclose(g, expected[name], atol=1e-11, err_msg=f"{mode} {name}")


@pytest.mark.parametrize("length", [1, 3, 8])
def test_any_length_fits(length):
    """One token, less than a chunk, exactly one chunk."""
    x = inputs(length, decay="channel", beta=True)
    expected = definition(**x)
    for mode in (None, "chunk"):
        got = run(**x, mode=mode, chunk_size=8, return_state=True)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=5e-6)


@pytest.mark.parametrize("strength", [-50.0, -np.inf])
@pytest.mark.parametrize("decay", ["head", "channel"])
def test_strong_decay_leaves_the_own_write_only(decay, strength):
    """With everything forgotten at each step, a read sees what its own token wrote."""
    x = inputs(20, decay=decay, beta=False)
    x["decay"] = jnp.full_like(x["decay"], strength)

    def loss(x):
        out = recur(**x, mode="chunk")
        return out.sum(), out

    (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(x)
    own = jnp.einsum("bthd,bthd,bthe->bthe", x["query"], x["key"], x["value"])
    np.testing.assert_allclose(out, own, atol=1e-5)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_weak_decay_is_exact_beside_strong_decay():
    """Large sums of decays must not cost the digits of small differences."""
    x = inputs(64, decay="head", beta=False)
    x["decay"] = jnp.where(jnp.arange(64)[None, :, None] < 60, -49.3, -0.03) * jnp.ones((B, 1, H))
    expected, _ = definition(**x)
    np.testing.assert_allclose(run(**x, mode="chunk"), expected, atol=3e-6)


@pytest.mark.parametrize("mode", ["scan", "chunk"])
def test_a_sequence_may_be_cut_and_resumed(mode):
    x = inputs(30, decay="head", beta=True)
    whole, final = run(**x, mode=mode, chunk_size=8, return_state=True)
    state = x.pop("initial_state")
    parts = []
    for cut in (slice(0, 11), slice(11, 30)):
        part = {name: y[:, cut] for name, y in x.items()}
        out, state = run(**part, initial_state=state, mode=mode, chunk_size=8, return_state=True)
        parts.append(out)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=5e-6)
    np.testing.assert_allclose(state, final, atol=5e-6)


def test_grouped_heads_are_repeated():
    x = inputs(9)
    key, value = x["key"][:, :, :1], x["value"][:, :, :1]
    got = run(x["query"], key, value)
    expected = run(x["query"], jnp.repeat(key, H, 2), jnp.repeat(value, H, 2))
    np.testing.assert_array_equal(got, expected)


def test_bfloat16_is_computed_in_float32():
    x = inputs(20, decay="head", beta=True)
    low = {name: y.astype(jnp.bfloat16) for name, y in x.items()}
    out, state = run(**low, return_state=True)
    assert (out.dtype, state.dtype) == (jnp.bfloat16, jnp.float32)
    expected = run(**{name: y.astype(jnp.float32) for name, y in low.items()})
    np.testing.assert_array_equal(out, expected.astype(jnp.bfloat16))


@pytest.mark.parametrize("mode", ["scan", "chunk"])
def test_backward_memory_grows_with_chunks_not_tokens(mode):
    """Doubling the length may double the temporaries, which hold far less than every state."""

    def temporaries(length):
        shape = jax.ShapeDtypeStruct((1, length, 1, 32), jnp.float32)

        def loss(*x):
            return (recur(*x, mode=mode) ** 2).sum()

        program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, shape, shape).compile()
        analysis: Any = program.memory_analysis()
        return analysis.temp_size_in_bytes

    long = temporaries(2048)
    assert long <= 2.1 * temporaries(1024)
    assert long < 0.2 * 2048 * 32 * 32 * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": (B, 5, H)}, r"query: expected 4 axes .* got shape \[2, 5, 2\]"),
        ({"key": (B, 5, H, 7)}, r"key: expected shape \[b=2, t=5, g=2, d=8\], got \[2, 5, 2, 7\]"),
        ({"value": (B, 4, H, E)}, "value: expected shape"),
        ({"key": (B, 5, 3, D)}, "key: expected a number of heads that divides .* 2, got 3"),
        ({"decay": (B, 5)}, "decay: expected 3 axes"),
        ({"beta": (B, 5, 1)}, "beta: expected shape"),
        ({"initial_state": (B, H, E, D)}, "initial_state: expected shape"),
    ],
)
def test_bad_shapes_are_named(plain_checks, change, message):
    shapes = {"query": (B, 5, H, D), "key": (B, 5, H, D), "value": (B, 5, H, E)} | change
    zeros: dict[str, Any] = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=message):
        recur(**zeros)


def test_bad_choices_are_named(plain_checks):
    x = inputs(3)
    wrong: Any = "fast"
    with pytest.raises(ValueError, match=r"mode: expected one of .* got 'fast'"):
        recur(**x, mode=wrong)
    with pytest.raises(ValueError, match="chunk_size: expected at least 1, got 0"):
        recur(**x, chunk_size=0)
    with pytest.raises(ValueError, match=r"implementation: expected one of .* got 'fast'"):
        recur(**x, implementation=wrong)


@pytest.mark.parametrize(("least", "beta"), [(-0.3, False), (-1.9, True)])
def test_gentle_decays_per_channel_are_as_exact_as_any(x64, least, beta):
    """These are factored: what chunks of 8 forget is below the bound, and not far from it."""
    x = inputs(21, decay="channel", beta=beta, dtype=np.float64)
    x["decay"] = least * jax.random.uniform(jax.random.key(3), x["decay"].shape, x["decay"].dtype)

    assert bool(is_gentle(x["decay"], 8))

    def gradient(x, mode: Any):
        def loss(x):
            out, state = recur(**x, mode=mode, chunk_size=8, return_state=True)
            return (out**2).sum() + (state**2).sum(), out

        return jax.value_and_grad(loss, has_aux=True)(x)

    run = jax.jit(gradient, static_argnames="mode")
    (_, out), gradients = run(x, "chunk")
    (_, expected), exact = run(x, "scan")
    np.testing.assert_allclose(out, expected, atol=1e-12)
    for name in exact:
        np.testing.assert_allclose(gradients[name], exact[name], atol=1e-10, err_msg=name)
    single: dict[str, Any] = {name: array.astype(np.float32) for name, array in x.items()}
    found = recur(**single, mode="chunk", chunk_size=8)
    np.testing.assert_allclose(found, expected, atol=2e-6 * float(abs(expected).max()))


def test_gentle_and_violent_decays_in_one_vmap():
    x = inputs(9, decay="channel", beta=False)
    decays = jnp.array([-0.01, -60.0])
    decays = decays.reshape(2, 1, 1, 1, 1) * jnp.ones_like(x["decay"])

    def loss(decay):
        return (recur(**(x | {"decay": decay}), mode="chunk") ** 2).sum()

    together = jax.jit(jax.vmap(jax.grad(loss)))(decays)
    for decay, gradient in zip(decays, together, strict=True):
        np.testing.assert_allclose(gradient, jax.jit(jax.grad(loss))(decay), atol=1e-5)


def test_batch_and_heads_spread_over_devices_without_communication():
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=auto, devices=jax.devices()[:4])
    place = NamedSharding(mesh, PartitionSpec("data", None, "model"))
    channel = jax.ShapeDtypeStruct((2, 8, 4, 4), jnp.float32, sharding=place)
    head = jax.ShapeDtypeStruct((2, 8, 4), jnp.float32, sharding=place)
    program = jax.jit(partial(recur, mode="chunk"))

    def sent(decay):
        compiled = program.lower(channel, channel, channel, decay=decay, beta=head).compile()
        return re.findall(r"(\S+) (all-\w+|collective-permute)\(", str(compiled.as_text()))

    assert sent(head) == []
    # Of decays per channel all devices have to know that they are gentle: one number.
    assert {kind for kind, _ in sent(channel)} <= {"f32[]", "pred[]"}
