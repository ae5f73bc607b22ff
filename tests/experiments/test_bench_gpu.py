"""The benchmark on GPUs, as far as a machine without one can run it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tools.bench_gpu import attention, recurrences, timing
from experiments.tools.bench_gpu.__main__ import main
from jattn import attend


def test_without_a_gpu_it_says_so(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out == "No GPU here (JAX sees cpu only): nothing was measured.\n"


def test_a_rehearsal_runs_all_but_the_gpu(capsys, tmp_path):
    file = tmp_path / "gpu.json"
    assert main(["--rehearse", f"--output={file}"]) == 0
    found = json.loads(file.read_text())
    assert {"kind", "driver", "jax", "jaxlib", "date"} == found["device"].keys()
    assert len(found["checks"]) == 4
    assert [row["attention"] for row in found["attention"]] == ["full"] * 2 + ["causal"] * 2
    assert len(found["recurrence"]) == 4
    assert all(row["ours ms"] > 0 for row in found["attention"] + found["recurrence"])
    assert "| causal | 16 | 8 | forward + backward |" in capsys.readouterr().out


def test_what_fails_is_left_out(capsys):
    def fail():
        raise NotImplementedError("not here")

    assert [t is None for t in timing.medians([lambda: jnp.ones(1), fail], 2)] == [False, True]
    assert "not here" in capsys.readouterr().err


@pytest.mark.parametrize("variant", attention.VARIANTS, ids=lambda v: v.name)
def test_contenders_compute_the_same(variant):
    t, h = 8, 2
    arrays = [x.astype(jnp.float32) for x in attention.draw(1, t, h, 4)[:3]]
    named = attention.contenders(variant, t, h)
    want = attend(*arrays, implementation="reference", **variant.options(t, h))
    got = named["dense"](*arrays)
    assert jnp.allclose(got, want, atol=1e-5)


def test_recurrent_contenders_compute_the_same():
    named = recurrences.recurrent_contenders()
    for name in recurrences.RECURRENCES:
        arrays, d_out = recurrences.draw_recurrent(name, 1, 5, 2, 4)
        assert jax.eval_shape(named["chunked"], arrays).shape == d_out.shape
    arrays, d_out = recurrences.draw_recurrent("decay per head", 1, 5, 2, 4)
    chunked, scan = (
        jax.jit(timing.with_gradients(named[n]))(arrays, d_out)[0] for n in ("chunked", "scan")
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-2), chunked, scan)
