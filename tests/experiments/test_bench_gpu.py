"""The benchmark on GPUs, as far as a machine without one can run it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import bench_gpu
from jattn import attend


def test_without_a_gpu_it_says_so(capsys):
    assert bench_gpu.main([]) == 0
    assert capsys.readouterr().out == "No GPU here (JAX sees cpu only): nothing was measured.\n"


def test_what_fails_is_left_out(capsys):
    def fail():
        raise NotImplementedError("not here")

    assert [t is None for t in bench_gpu.medians([lambda: jnp.ones(1), fail], 2)] == [False, True]
    assert "not here" in capsys.readouterr().err


@pytest.mark.parametrize("variant", bench_gpu.VARIANTS, ids=lambda v: v.name)
def test_contenders_compute_the_same(variant):
    t, h = 8, 2
    arrays = [x.astype(jnp.float32) for x in bench_gpu.draw(1, t, h, 4)[:3]]
    named = bench_gpu.contenders(variant, t, h)
    want = attend(*arrays, implementation="reference", **variant.options(t, h))
    got = named["dense"](*arrays)
    assert jnp.allclose(got, want, atol=1e-5)


def test_recurrent_contenders_compute_the_same():
    named = bench_gpu.recurrent_contenders()
    for name in bench_gpu.RECURRENCES:
        arrays, d_out = bench_gpu.draw_recurrent(name, 1, 5, 2, 4)
        assert jax.eval_shape(named["chunked"], arrays).shape == d_out.shape
    arrays, d_out = bench_gpu.draw_recurrent("decay per head", 1, 5, 2, 4)
    chunked, scan = (
        jax.jit(bench_gpu.with_gradients(named[n]))(arrays, d_out)[0] for n in ("chunked", "scan")
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-2), chunked, scan)
