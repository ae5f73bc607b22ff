"""The GPU kernels: interpreted against float64, and lowered for a GPU that is not there."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from experiments.tools.bench_gpu.suite import CASES, SMALL, apart, draw, with_gradients
from jattn import attend, masks
from jattn.attention import explain, scores
from jattn.attention.attention_args import bind
from jattn.attention.blocks import Blocks
from jattn.attention.pallas_gpu import pallas_gpu
from jattn.attention.reference import reference

pytestmark = pytest.mark.kernels

interpreted = pytest.mark.skipif(
    "idx" in inspect.signature(plgpu.load).parameters,
    reason="interpreting a product with a transposed block needs jax >= 0.12",
)


def run(case):
    """The kernels on a simulated GPU, where races and reads out of bounds are errors."""
    parameters = plgpu.InterpretGPUParams(detect_races=True, on_race="raise")  # pyright: ignore
    return pallas_gpu(case, parameters)


@interpreted
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("grouped", marks=pytest.mark.smoke),
        *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != "grouped"),
    ],
)
def test_values_and_gradients(name):
    sizes, options = CASES[name]
    with jax.enable_x64(False):
        arrays = draw(**sizes)
        (out, lse), gradients = with_gradients(run, arrays, options)
    with jax.enable_x64(True):
        (want, want_lse), want_gradients = with_gradients(reference, arrays, options, True)
    assert out.dtype == jnp.bfloat16
    assert lse.dtype == jnp.float32
    assert apart(out, want) < 4e-3
    some = np.isfinite(want_lse)
    np.testing.assert_array_equal(np.isfinite(lse), some)
    np.testing.assert_allclose(np.asarray(lse)[some], want_lse[some], atol=1e-5)
    for got, wanted in zip(*map(jax.tree.leaves, (gradients, want_gradients)), strict=True):
        assert apart(got, wanted) < 8e-3
        assert np.isfinite(np.asarray(got, np.float32)).all()


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_bad_numbers_behind_the_mask_stay_there(bad):
    query, key, value, d_out, _ = draw(**SMALL)
    hide = lambda x: x.at[:, 150:].set(bad)

    def loss(key, value):
        case = bind(query, key, value, mask=masks.causal() & masks.prefix(150))
        return (run(case)[0] * d_out).sum()

    for got, want in zip(
        jax.value_and_grad(loss, (0, 1))(hide(key), hide(value)),
        jax.value_and_grad(loss, (0, 1))(key, value),
        strict=True,
    ):
        jax.tree.map(np.testing.assert_array_equal, got, want)
    # A query that attends to one becomes NaN, in a full tile and in a partial one; no other does.
    out = run(bind(query, key, value.at[:, 20].set(jnp.nan), mask=masks.causal()))[0]
    affected = np.isnan(np.asarray(out, np.float32)).any((0, 2, 3))
    np.testing.assert_array_equal(affected, np.arange(200) >= 20)


def on_gpu(kind="NVIDIA H200"):
    device = AbstractDevice(device_kind=kind, num_cores=None, platform="gpu")
    mesh = AbstractMesh((1,), ("x",), axis_types=(AxisType.Auto,), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


def lowered(sizes, options, dtype=jnp.bfloat16):
    """Numbers of kernels in the programs of `attend` for an H200, forward and with gradients."""

    def forward(query, key, value):
        return attend(query, key, value, implementation="pallas", **options)

    def both(query, key, value, d_out):
        return jax.vjp(forward, query, key, value)[1](d_out)

    give = lambda x: jax.ShapeDtypeStruct(x.shape, dtype)
    *arrays, d_out, _ = map(give, jax.eval_shape(lambda: draw(**sizes)))
    safe = [export.DisabledSafetyCheck.custom_call(n) for n in ("mosaic_gpu_v2", "mosaic_gpu")]
    with on_gpu():
        programs = [
            export.export(jax.jit(f), platforms=["cuda"], disabled_checks=safe)(*given)
            for f, given in ((forward, arrays), (both, [*arrays, d_out]))
        ]
    return [p.mlir_module().count("custom_call @mosaic_gpu") for p in programs]


@pytest.mark.parametrize(
    "name", ["grouped", *(pytest.param(n, marks=pytest.mark.slow) for n in CASES if n != "grouped")]
)
def test_lowers_for_a_hopper_gpu(name):
    sizes, options = CASES[name]
    options = dict(options)
    if "slopes" in options:
        options["score_mod"] = scores.alibi(options.pop("slopes"))
    if name == "capped" and "idx" in inspect.signature(plgpu.load).parameters:
        pytest.skip("the derivative of tanh needs jax >= 0.12")
    long = sizes | dict(t=1000 if name in ("grouped", "plain") else sizes["t"])
    assert lowered(long, options) == [1, 4 if name in ("wide", "biased") else 3]


def test_what_the_kernels_cannot_do_they_say():
    x = jnp.ones((1, 1024, 2, 64), jnp.bfloat16)
    table = scores.relative_bias(jnp.ones((2, 3)))
    for reason, arrays, options in (
        ("float16 or bfloat16", [x.astype(jnp.float32)] * 3, {}),
        ("no bias", [x] * 3, dict(bias=jnp.zeros((1024, 1024)))),
        ("softmax only", [x] * 3, dict(normalizer="sigmoid")),
        ("at most 256", [jnp.ones((1, 8, 1, 264), jnp.bfloat16)] * 3, {}),
        ("needs integer_pow", [x] * 3, dict(score_mod=lambda s, *_: 1 / s)),
        ("needs cbrt", [x] * 3, dict(score_mod=lambda s, *_: jnp.cbrt(s))),
        ("needs gather by position", [x] * 3, dict(score_mod=table)),
        ("no mask array over both", [x] * 3, dict(mask=jnp.ones((1024, 1024), bool))),
    ):
        with on_gpu(), pytest.raises(NotImplementedError, match=reason):
            attend(*arrays, implementation="pallas", **options)
    with on_gpu("NVIDIA B200"):
        assert "Hopper" in str(explain(x, x, x, implementation="pallas"))
    with on_gpu(), pytest.raises(NotImplementedError, match="choose their own blocks"):
        attend(x, x, x, implementation=Blocks(query=128))
    with on_gpu():
        assert "only by name" in dict(explain(x, x, x, mask=masks.causal()).refused)["pallas"]


def test_without_a_name_cudnn_serves_where_it_is_exact(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x = jnp.ones((1, 1024, 2, 64), jnp.bfloat16)
    with on_gpu():
        assert explain(x, x, x).chosen == "cudnn"
        assert explain(x, x, x, bias=jnp.zeros((1, 2, 1024, 1024))).chosen == "blockwise"
        assert explain(x, x, x, mask=masks.causal()).chosen == "blockwise"
        window = masks.sliding_window(8)
        assert explain(x, x, x, mask=window, implementation="cudnn").chosen == "cudnn"
        ahead = masks.sliding_window(8, 8)
        assert "its masks are" in str(explain(x, x, x, mask=ahead, implementation="cudnn"))
    with on_gpu("Tesla V100"):
        assert explain(x, x, x).chosen == "blockwise"


@pytest.mark.parametrize("mask", [masks.causal(), masks.sliding_window(3)])
def test_cudnn_is_told_the_same_mask(mask):
    query, key, value = jax.random.normal(jax.random.key(0), (3, 1, 8, 2, 4))
    told = importlib.import_module("jattn.attention.attend")._cudnn_window(mask)
    got = jax.nn.dot_product_attention(query, key, value, implementation="xla", **told)
    np.testing.assert_allclose(got, attend(query, key, value, mask=mask), atol=1e-6)
