"""The TPU kernels beyond what holds of every backend: interpreted, and compiled for real chips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tools.libtpu import TOPOLOGIES
from jattn import attend, masks
from jattn.attention import explain, scores
from jattn.attention.blocks import Blocks
from jattn.attention.score_programs import split
from tests import tpu_compile
from tests.attention import test_attend as shared
from tests.attention.conftest import SMALL

pytestmark = pytest.mark.kernels


@pytest.mark.parametrize("name", ["short_window_sink", "causal_grouped", "offset_bias_sink"])
@pytest.mark.usefixtures("interpreted")
def test_a_few_cases_in_any_run(name, oracle):
    shared.test_values_and_gradients(name, SMALL, oracle)


@pytest.mark.usefixtures("interpreted")
def test_bad_numbers_behind_the_mask_stay_there():
    shared.test_bad_numbers_behind_the_mask_stay_there(SMALL, jnp.nan)


@pytest.mark.usefixtures("interpreted")
def test_twice_is_bit_for_bit_the_same_and_stretches_of_queries_agree(monkeypatch):
    arrays = shared.draw(1, 300, 200, 2, 1, 1, 8, 8, bias=(1, 2, 300, 1))
    options = {"mask": masks.causal(-40) & masks.prefix(190), "implementation": SMALL}

    @jax.jit
    def gradients(arrays):
        return jax.grad(lambda a: (shared.call(a, **options) ** 2).sum())(arrays)

    first = gradients(arrays)
    jax.tree.map(np.testing.assert_array_equal, first, gradients(arrays))
    # As for queries too long for the chip's memory: here three stretches of one block.
    monkeypatch.setattr("jattn.attention.tpu.backward.QUERY_GRADIENT_BYTES", 1)
    jax.clear_caches()
    again = gradients(arrays)
    jax.tree.map(lambda x, y: shared.assert_close(x, y, 1e-5, "stretches"), again, first)


@pytest.mark.slow
@pytest.mark.parametrize("t", [1, 7, 129, 1000])
@pytest.mark.parametrize("d", [40, 80, 256])
@pytest.mark.usefixtures("interpreted")
def test_odd_sizes(t, d, oracle):
    arrays = shared.draw(1, t, t, 3, 1, 1, d, 24)
    d_out = jax.random.normal(jax.random.key(1), (1, t, 3, 24))

    def loss(arrays):
        out = shared.call(arrays, mask=masks.causal(), implementation="pallas")
        return (out * d_out).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
    want, _, want_grads = oracle(arrays, d_out, allowed=np.tri(t, dtype=bool))
    shared.assert_close(out, want, 2e-6, "out")
    for name in grads:
        shared.assert_close(grads[name], want_grads[name], 1e-5, name)


@pytest.mark.usefixtures("interpreted")
def test_score_programs_meet_only_the_queries_that_a_part_of_a_tile_can_meet():
    arrays = shared.draw(1, 256, 256, 2, 1, 1, 8, 8, slopes=(2,))
    # One tile: its second part of keys meets half of the queries.
    tiles = Blocks(256, 256, 128, 256, 256, 128)

    def gradients(implementation):
        def loss(arrays):
            out = attend(
                arrays["query"], arrays["key"], arrays["value"], mask=masks.causal(),
                score_mod=scores.chain(scores.alibi(arrays["slopes"]), scores.soft_cap(2.0)),
                implementation=implementation,
            )  # fmt: skip
            return (out**2).sum(), out

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)

    (_, out), grads = gradients(tiles)
    (_, want), want_grads = gradients("reference")
    shared.assert_close(out, want, 2e-6, "out")
    for name in grads:
        shared.assert_close(grads[name], want_grads[name], 1e-5, name)


def test_a_score_program_is_the_modification_tile_by_tile():
    taus = jnp.array([1.0, 2.0])
    mod = scores.chain(scores.temperature(taus), scores.alibi(2), scores.soft_cap(3.0))
    numbers, learned, apply = split(mod, 3, 2, (4, 5), jnp.float32)
    assert all(n.shape == (3, 2, 1, 1) for n in numbers)
    assert not any(learned)
    score = jax.random.normal(jax.random.key(0), (4, 5))
    q_index, k_index = 7 + jnp.arange(5)[None], 2 + jnp.arange(4)[:, None]
    got = apply([n[1, 1] for n in numbers], score, q_index, k_index)
    np.testing.assert_allclose(
        got, mod(score, jnp.int32(1), jnp.int32(1), q_index, k_index), rtol=1e-6
    )


def test_only_numbers_of_traced_arrays_have_gradients():
    kinds = []

    def program(slopes):
        mod = scores.chain(scores.alibi(slopes), scores.temperature(jnp.array([1.0, 2.0])))
        kinds.append(split(mod, 1, 2, (4, 5), jnp.float32).learned)
        return slopes.sum()

    jax.grad(program)(jnp.ones(2))
    assert sorted(kinds[0]) == [False, True]


def test_what_the_kernel_cannot_do_it_says():
    x = jnp.ones((1, 8, 2, 4))
    table = scores.relative_bias(jnp.zeros((2, 3)))
    with pytest.raises(NotImplementedError, match="needs gather by position, which no kernel has"):
        attend(x, x, x, score_mod=table, implementation="pallas")
    with pytest.raises(NotImplementedError, match="never holds the weights"):
        attend(x, x, x, return_weights=True, implementation=Blocks())
    assert explain(x, x, x, score_mod=table, implementation="pallas").chosen is None


COMPILE = """
from jattn import attend, masks
from jattn.attention import explain, scores

def case(h=8, g=8, t=4096, s=4096, d=128, e=128, dtype=jnp.bfloat16, bias=None, sink=None, **kw):
    give = jax.ShapeDtypeStruct
    arrays = dict(query=give((1, t, h, d), dtype), key=give((1, s, g, d), dtype),
                  value=give((1, s, g, e), dtype))
    if bias: arrays["bias"] = give(bias, jnp.float32)
    if sink: arrays["sink"] = give(sink, jnp.float32)
    def forward(arrays):
        q, k, v = (arrays[n] for n in ("query", "key", "value"))
        rest = {n: a for n, a in arrays.items() if n in ("bias", "sink")}
        chosen.append(explain(q, k, v, **rest, **kw).chosen)
        return attend(q, k, v, **rest, **kw)
    def both(arrays, d_out):
        return jax.vjp(forward, arrays)[1](d_out)
    return forward, both, arrays, give((1, t, h, e), dtype)

chosen = []
def tell(name, compiled):
    report(name=name, temporary=compiled.memory_analysis().temp_size_in_bytes,
           flops=compiled.cost_analysis()["flops"], chosen=chosen[-1])

def check(topology, name, **kw):
    forward, both, arrays, d_out = case(**kw)
    tell(name, compile_on_one(topology, forward, arrays))
    tell(name + "_gradient", compile_on_one(topology, both, arrays, d_out))
"""


@pytest.mark.libtpu
@pytest.mark.parametrize("chip", TOPOLOGIES)
def test_compiles_for_every_chip_in_linear_memory_with_a_true_cost(chip):
    topology = TOPOLOGIES[chip]
    script = f"check({topology!r}, 'plain', mask=masks.causal())"
    forward, gradient = tpu_compile.run(COMPILE + script)
    flops = 4 * 8 * 4096**2 * 128 / 2  # Two products, half of the pairs.
    for found, megabytes, expected in ((forward, 20, flops), (gradient, 60, 3.5 * flops)):
        assert found["chosen"] == "pallas"
        assert found["flops"] == pytest.approx(expected, rel=0.1)
        # v5p and tpu7x have too little vector memory for arrays in another layout to wait there.
        if chip in ("v5e", "v6e") or found is gradient:
            assert found["temporary"] <= megabytes * 1e6


@pytest.mark.slow
@pytest.mark.libtpu
@pytest.mark.parametrize("chip", TOPOLOGIES)
def test_compiles_with_everything(chip):
    script = (
        f"topology = {TOPOLOGIES[chip]!r}"
        + """
small = dict(h=6, g=2, t=1024, s=1024, d=64, e=64)
for d in (16, 40, 64, 80, 96, 192, 256):
    check(topology, f"d{d}", **(small | dict(d=d, e=d, mask=masks.causal())))
check(topology, "odd", **(small | dict(t=1000, s=1511, e=96)))
check(topology, "short", **(small | dict(t=7, s=9, d=8, e=8)), implementation="pallas")
check(topology, "float32", **(small | dict(dtype=jnp.float32, mask=masks.sliding_window(200))))
check(topology, "sink", sink=(6,), mask=masks.causal(), score_mod=scores.soft_cap(30.0), **small)
check(topology, "alibi", bias=(1, 6, 1, 1024), score_mod=scores.alibi(6), **small)
check(topology, "full_bias", bias=(1024, 1024), mask=masks.causal(), **small)
ids = jnp.repeat(jnp.arange(4), 256)[None]
check(topology, "packed", mask=masks.segments(ids) & masks.causal(), **small)
for name in ("sigmoid", "softplus_l1", "relu"):
    check(topology, name, normalizer=name, mask=masks.causal(), **small)
table = jax.random.uniform(jax.random.key(0), (1, 6, 16, 16)) < 0.3
check(topology, "blocks", mask=masks.blocks(table, 64, 64) & masks.causal(), **small)
check(topology, "segments", mask=masks.segment_table(table[0, 0, :4, :4], ids), **small)
first = jnp.maximum(jnp.arange(1024) - 100, 0)
check(topology, "range", mask=masks.key_range(first, first + 50), **small)
check(topology, "positions", mask=masks.causal_positions(first[None, None]), **small)
check(topology, "plane", mask=masks.neighborhood((32, 32), 7), **small)
check(topology, "space", mask=masks.neighborhood((8, 16, 8), (3, 5, 3), tile=(4, 4, 8)), **small)
"""
    )
    found = tpu_compile.run(COMPILE + script, timeout=900)
    assert len(found) == 2 * 23
    assert {f["chosen"] for f in found} == {"pallas"}
