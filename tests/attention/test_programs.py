"""How calls become programs: none compiled twice, any length, any mode, any machine's way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jattn
from jattn import attend, masks
from jattn.attention import scores
from jattn.attention.tiling import summarise


def draw(*shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(0), shape, dtype)


def test_eager_calls_with_new_functions_of_the_same_kind_share_a_program(caplog):
    x = draw(1, 600, 1, 8)
    table = draw(3)

    def call(scale):
        mod = lambda score, b, h, i, j: score * scale + table[(i + j) % 3]
        mask = lambda b, h, i, j: i >= j
        return attend(x, x, x, mask=mask, score_mod=mod, implementation="blockwise")

    first = call(2.0)
    with jax.log_compiles(True):
        np.testing.assert_array_equal(call(2.0), first)
    assert "Finished XLA compilation" not in caplog.text
    assert np.abs(np.asarray(call(3.0) - first)).max() > 1e-3


def test_rules_for_derivatives_are_not_mistaken_for_each_other():
    x = draw(1, 600, 1, 8)

    def gradient(factor):
        @jax.custom_jvp
        def scaled(score):
            return score

        scaled.defjvp(lambda primals, tangents: (primals[0], factor * tangents[0]))
        mod = lambda score, b, h, i, j: scaled(score)
        f = lambda q: attend(q, x, x, score_mod=mod, implementation="blockwise").sum()
        return np.asarray(jax.grad(f)(x))

    assert np.abs(gradient(1.0)).max() > 1e-3
    np.testing.assert_allclose(gradient(3.0), 3 * gradient(1.0), rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("plain_checks")
def test_lengths_may_be_symbols():
    def run(q, k, ids):
        mask = masks.causal(align="end") & masks.segments(ids[:, :1], ids)
        out = attend(q, k, k, mask=mask, score_mod=scores.alibi(2), sink=0.0)
        return out, jattn.recur(k, k, k, chunk_size=4), jattn.recur(k, k, k, mode="scan")

    b, s = export.symbolic_shape("b, s")
    give = jax.ShapeDtypeStruct
    exported = export.export(jax.jit(run))(
        give((b, 1, 2, 8), jnp.float32), give((b, s, 2, 8), jnp.float32), give((b, s), jnp.int32)
    )
    q, k = draw(3, 1, 2, 8), draw(3, 11, 2, 8)
    ids = jnp.zeros((3, 11), jnp.int32).at[:, :4].set(1)
    for got, want in zip(exported.call(q, k, ids), run(q, k, ids), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("mode", ["reference", "blockwise"])
def test_double_precision_switched_on(x64, mode):
    """Indices are 32-bit, learned tables of another precision have gradients of their own."""
    x = draw(1, 70, 2, 4)
    table = jnp.ones(2, jnp.float64)

    def run(table):
        mod = scores.chain(
            scores.temperature(table), scores.alibi(2), lambda s, b, h, i, j: s + (i - j) // 7
        )
        out = attend(x, x, x, score_mod=mod, mask=masks.causal(), bias=table[None, :, None, None],
                     implementation=mode)  # fmt: skip
        return (out**2).sum(), out

    gradient, out = jax.grad(run, has_aux=True)(table)
    assert (out.dtype, gradient.dtype) == (jnp.float32, jnp.float64)
    (high, _), (low, _) = (run(table + jnp.array([d, 0])) for d in (1e-2, -1e-2))
    np.testing.assert_allclose(gradient[0], (high - low) / 2e-2, rtol=1e-2)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bits_are_read_as_sixteen(name):
    x = draw(1, 9, 2, 4).astype(name)
    out = attend(x, x, x.astype(jnp.float32))
    wide = x.astype(jnp.float32)
    assert out.dtype == x.dtype
    want = attend(wide, wide, wide).astype(x.dtype)
    np.testing.assert_array_equal(np.asarray(out, np.float32), np.asarray(want, np.float32))
    assert jattn.recur(x, x, x).dtype == jnp.bfloat16


@pytest.mark.kernels
def test_kernels_under_vmap_checkpoint_and_jacobians():
    x = draw(2, 1, 9, 1, 8)

    def loss(name, y):
        return (attend(y, y, y, mask=masks.causal(), implementation=name) ** 2).sum()

    @functools.partial(jax.jit, static_argnums=0)
    def run(name, x):
        f = functools.partial(loss, name)
        one = lambda y: attend(y, y, y, mask=masks.causal(), implementation=name)
        return (
            jax.vmap(one)(x),
            jax.vmap(jax.grad(f))(x),
            jax.grad(lambda y: jax.checkpoint(f)(y[0]))(x),
            jax.jacrev(lambda s: one(s * x[0]).sum((0, 1, 2)))(jnp.float32(1.5)),
        )

    for got, want in zip(run("pallas", x), run("reference", x), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_inside_shard_map_with_its_own_checks():
    mesh = jax.make_mesh((2,), ("x",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    spread = jax.sharding.PartitionSpec("x")
    x, bias = draw(2, 70, 2, 4), draw(1, 1, 1, 70)

    def run(x, bias):
        a = attend(x, x, x, bias=bias, mask=masks.causal(), implementation="blockwise")
        return a + jattn.recur(x, x, x, chunk_size=8)

    def loss(f, x, bias):
        return (f(x, bias) ** 2).sum()

    inside = jax.shard_map(
        run, mesh=mesh, in_specs=(spread, jax.sharding.PartitionSpec()), out_specs=spread
    )
    for got, want in zip(
        jax.jit(jax.grad(functools.partial(loss, inside), (0, 1)))(x, bias),
        jax.jit(jax.grad(functools.partial(loss, run), (0, 1)))(x, bias),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * float(jnp.abs(want).max()))


def test_a_mask_known_beforehand_is_summarised_before_the_program_is_made():
    seen = []
    mask = masks.from_array(jnp.asarray(np.tri(300, dtype=bool)))

    @jax.jit
    def run(x):
        seen.append(type(summarise(mask, 300, 300, 128, 128)))
        return x

    run(jnp.ones(1))
    assert seen == [np.ndarray]
