"""The recurrence's TPU kernel: interpreted against the definition, compiled for real chips."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from experiments.tools.libtpu import TOPOLOGIES
from jattn.recurrence import recur
from tests import tpu_compile
from tests.recurrence.test_recur import KINDS, definition, inputs

pytestmark = pytest.mark.kernels
run = jax.jit(partial(recur, implementation="pallas", return_state=True))


@pytest.fixture(autouse=True)
def interpreted(capfd):
    """A TPU with two cores, simulated: races, reads out of bounds and unset memory show."""
    parameters = pltpu.InterpretParams(detect_races=True, num_cores_or_threads=2)
    with pltpu.force_tpu_interpret_mode(parameters):
        yield
    assert "RACE DETECTED" not in capfd.readouterr().out


@pytest.mark.parametrize(("decay", "beta"), KINDS)
def test_follows_the_definition(decay, beta):
    x = inputs(150, decay=decay, beta=beta)
    expected, final = definition(**x)
    out, state = run(**x)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(out, expected, atol=2e-6 * scale)
    np.testing.assert_allclose(state, final, atol=2e-6 * scale)


LENGTHS = [200, *(pytest.param(t, marks=pytest.mark.slow) for t in (1, 7, 129, 300))]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("decay", "beta"), [("head", False), ("head", True), ("channel", True)])
def test_gradients_are_those_of_the_chunked_form(decay, beta, length):
    x = inputs(length, decay=decay, beta=beta)

    @partial(jax.jit, static_argnames="implementation")
    @jax.grad
    def gradient(x, implementation):
        with jax.default_matmul_precision("highest"):
            out, state = recur(**x, return_state=True, implementation=implementation)
        return jnp.sin(out).sum() + jnp.cos(state).sum()

    got, want = gradient(x, "pallas"), gradient(x, "xla")
    for name in got:
        scale = max(1.0, float(jnp.abs(want[name]).max()))
        np.testing.assert_allclose(got[name], want[name], atol=1e-5 * scale, err_msg=name)


def test_half_precision_and_shared_heads():
    x = {n: v for n, v in inputs(150, decay="head").items() if n != "initial_state"}
    x["key"], x["value"] = x["key"][:, :, :1], x["value"][:, :, :1]
    half = {n: v.astype(jnp.bfloat16) for n, v in x.items() if n != "decay"} | {"decay": x["decay"]}
    out, _ = run(**half)
    wide = {n: v.astype(jnp.float32) for n, v in half.items()}
    want = recur(**wide, implementation="xla")
    assert out.dtype == jnp.bfloat16
    error = np.asarray(out, np.float64) - np.asarray(want, np.float64)
    assert np.sqrt((error**2).mean() / (np.asarray(want, np.float64) ** 2).mean()) <= 6e-3


def test_what_the_kernel_cannot_do_it_says():
    x = inputs(4)
    with pytest.raises(NotImplementedError, match="works by chunks, not mode='scan'"):
        recur(**x, mode="scan", implementation="pallas")


COMPILE = """
from jattn import recur

def check(topology, name, decay, beta, t, d, e, dtype):
    give = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    x = dict(query=give(1, t, 2, d), key=give(1, t, 1, d), value=give(1, t, 1, e))
    if decay:
        x["decay"] = give(1, t, 2) if decay == "head" else give(1, t, 2, d)
    if beta:
        x["beta"] = give(1, t, 2)
    both = lambda x, d_out: jax.vjp(lambda x: recur(**x), x)[1](d_out)
    compiled = compile_on_one(topology, both, x, give(1, t, 2, e))
    kernels = compiled.as_text().count("tpu_custom_call")
    report(name=name, kernels=kernels, temporary=compiled.memory_analysis().temp_size_in_bytes)
"""


@pytest.mark.libtpu
@pytest.mark.parametrize(
    "chip", ["v5e", *(pytest.param(c, marks=pytest.mark.slow) for c in ("v6e", "v5p", "tpu7x"))]
)
def test_compiles_for_every_chip(chip):
    script = (
        COMPILE
        + f"topology = {TOPOLOGIES[chip]!r}"
        + """
check(topology, "plain", None, False, 512, 128, 128, jnp.bfloat16)
check(topology, "gated delta", "head", True, 512, 128, 128, jnp.float32)
check(topology, "per channel", "channel", False, 512, 64, 128, jnp.bfloat16)
check(topology, "per channel delta, odd", "channel", True, 200, 80, 40, jnp.float32)
check(topology, "short", "head", True, 7, 16, 16, jnp.float32)
"""
    )
    found = tpu_compile.run(script)
    assert len(found) == 5
    for compiled in found:
        assert compiled["kernels"] >= 2, compiled
        assert compiled["temporary"] <= 20e6, compiled
