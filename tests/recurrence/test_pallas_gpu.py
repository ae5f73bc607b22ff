"""The recurrence's GPU kernel: interpreted against float64, and lowered for a GPU not there."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental.pallas import mosaic_gpu as plgpu

from jattn.recurrence import recur
from jattn.recurrence.chunked import is_gentle
from jattn.recurrence.pallas_gpu import recur_pallas
from tests.attention.test_pallas_gpu import apart, interpreted, on_gpu
from tests.recurrence.test_recur import KINDS, inputs

pytestmark = pytest.mark.kernels


def draw(length, decay, beta, d=8, e=6) -> tuple[dict[str, Any], Any]:
    """`inputs`, with what is multiplied in bfloat16, and gradients of the results."""
    rng = np.random.default_rng(1)
    x = inputs(length, decay=decay, beta=beta)
    if (d, e) != (8, 6):
        widen = lambda y, n: jnp.asarray(rng.standard_normal((*y.shape[:-1], n)), jnp.float32)
        key = widen(x["key"], d)
        key = key / jnp.linalg.norm(key, axis=-1, keepdims=True)
        x |= {"query": widen(x["query"], d), "key": key, "value": widen(x["value"], e)}
        x["initial_state"] = jnp.asarray(rng.standard_normal((2, 2, d, e)), jnp.float32)
        if decay == "channel":
            x["decay"] = -0.1 * jnp.abs(widen(x["decay"], d))
    low = {n: x[n].astype(jnp.bfloat16).astype(jnp.float32) for n in ("query", "key", "value")}
    shapes = x["value"].shape, x["initial_state"].shape
    return x | low, tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)


def kernel(query, key, value, initial_state, decay=None, beta=None):
    """On a simulated GPU, where races and reads out of bounds are errors."""
    parameters = plgpu.InterpretGPUParams(detect_races=True, on_race="raise")  # pyright: ignore
    if decay is not None:
        decay = decay.reshape(*decay.shape[:3], -1)
    return recur_pallas(query, key, value, decay, beta, initial_state, parameters)


def with_gradients(run, x: Any, cotangents):
    results, pull = jax.vjp(lambda x: run(**x), x)
    return *results, pull(cotangents)[0]


run = jax.jit(partial(with_gradients, kernel))
exact = jax.jit(partial(with_gradients, partial(recur, mode="scan", return_state=True)))


def dense(query, key, value, initial_state, decay=None, beta=None):
    """All in one product, exact but for operands in bfloat16: what rounding them alone does."""
    low = lambda x: x.astype(jnp.bfloat16).astype(x.dtype)
    times = lambda x, y: low(x) @ low(y)
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    elapsed = jnp.zeros_like(key)
    if decay is not None:
        decay = jnp.maximum(decay.reshape(*decay.shape[:3], -1), -100.0)
        elapsed = elapsed + jnp.swapaxes(jnp.cumsum(decay, 1), 1, 2)
    size = key.shape[2]
    later = jnp.tril(jnp.ones((size, size), bool))[..., None]
    gap = jnp.where(later, elapsed[..., :, None, :] - elapsed[..., None, :, :], -jnp.inf)
    pairs = lambda x: jnp.einsum("bhtd,bhid,bhtid->bhti", x, key, jnp.exp(gap))
    writes = value
    if beta is not None:
        beta = jnp.swapaxes(beta, 1, 2)[..., None]
        inverse = jnp.linalg.inv(jnp.eye(size) + beta * jnp.tril(pairs(key), -1))
        met = times(inverse, beta * key * jnp.exp(elapsed))
        writes = low(times(inverse, beta * value)) - times(met, initial_state)
    out = times(query * jnp.exp(elapsed), initial_state) + times(pairs(query), writes)
    last = elapsed[:, :, -1:]
    state = jnp.exp(last).mT * initial_state + times((key * jnp.exp(last - elapsed)).mT, writes)
    return jnp.swapaxes(out, 1, 2), state


rounded = jax.jit(partial(with_gradients, dense))


def check(given: Any, tiny: tuple[str, ...] = ()):
    """Values and gradients are less than twice as far from exact ones as rounding alone puts them.

    Those of `tiny` names are next to nothing.
    """
    got = run(*given)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda y: jnp.asarray(np.asarray(y, np.float64)), given)
        want, near = exact(*wide), rounded(*wide)
    named = [dict(out=x[0], state=x[1], **x[2]) for x in (got, want, near)]
    for name, value in named[0].items():
        assert np.isfinite(value).all(), name
        if name in tiny:
            np.testing.assert_allclose(value, named[1][name], atol=1e-6, err_msg=name)
        else:
            distance, allowed = (apart(x[name], named[1][name]) for x in named[::2])
            assert distance < 2 * max(2e-3, allowed), (name, distance, allowed)
    return got


@interpreted
@pytest.mark.smoke
def test_values_and_gradients_twice_the_same():
    given = jax.tree.map(lambda y: y[:1], draw(330, "head", True))  # More chunks than slots.
    first, second = check(given), run(*given)
    jax.tree.map(np.testing.assert_array_equal, first, second)


LENGTHS = [(*kind, 200) for kind in KINDS] + [("head", False, 1), (None, True, 64)]


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize(("decay", "beta", "length"), [*LENGTHS, ("channel", True, 7)])
def test_every_kind_and_length(decay, beta, length):
    check(draw(length, decay, beta))


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize(
    ("decay", "beta", "d", "e"),
    [(None, False, 128, 72), ("head", True, 192, 64), ("channel", True, 256, 64)],
)
def test_wide_states(decay, beta, d, e):
    x, cotangents = draw(130, decay, beta, d, e)
    assert decay != "channel" or is_gentle(x["decay"], 64)  # Elsewhere they are not.
    check((x, cotangents))


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize(("decay", "beta"), [("head", True), ("channel", False)])
def test_strong_decay(decay, beta):
    x, cotangents = draw(70, decay, beta)
    x["decay"] = jnp.full_like(x["decay"], -50.0)
    check((x, cotangents), tiny=("decay", "initial_state"))


def programs(x: Any, **options: Any) -> list[int]:
    """The program for an H200, forward and with gradients: how many kernels each has."""
    forward = partial(recur, **options)
    both = lambda x, d_out: jax.vjp(lambda x: forward(**x), x)[1](d_out)
    give = partial(jax.tree.map, lambda y: jax.ShapeDtypeStruct(y.shape, y.dtype))
    safe = [export.DisabledSafetyCheck.custom_call(n) for n in ("mosaic_gpu_v2", "mosaic_gpu")]
    with on_gpu():
        made = [
            export.export(jax.jit(f), platforms=["cuda"], disabled_checks=safe)(*given)
            for f, given in ((lambda x: forward(**x), [give(x)]), (both, give([x, x["value"]])))
        ]
    return [program.mlir_module().count("custom_call @mosaic_gpu") for program in made]


def half(length, decay, beta, d, e) -> dict[str, Any]:
    x, _ = draw(length, decay, beta, d, e)
    return x | {n: x[n].astype(jnp.bfloat16) for n in ("query", "key", "value")}


WIDE = pytest.param("channel", True, 1000, 256, 512, marks=pytest.mark.slow)
SIZES = [("head", True, 1000, 128, 128), (None, False, 7, 80, 40), WIDE]


@pytest.mark.parametrize(("decay", "beta", "length", "d", "e"), SIZES)
def test_lowers_for_a_hopper_gpu(decay, beta, length, d, e):
    x = half(length, decay, beta, d, e)
    assert programs(x, implementation="pallas") == [1, 2]


def test_only_by_name_and_what_it_cannot_do_it_says():
    x = half(70, "head", True, 64, 64)
    assert programs(x) == [0, 0]
    refused: list[tuple[str, dict[str, Any]]] = [
        ("bfloat16 numbers, and the inputs are float32", x | {"value": x["value"] * np.float32(1)}),
        ("at most 256 channels, not 264", half(2, None, False, 264, 6)),
        ("not mode='scan'", x | {"mode": "scan"}),
    ]
    for reason, given in refused:
        with on_gpu(), pytest.raises(NotImplementedError, match=reason):
            recur(**given, implementation="pallas")
    with on_gpu("NVIDIA B200"), pytest.raises(NotImplementedError, match="Hopper"):
        recur(**x, implementation="pallas")
