"""Decoding: against the reference, ragged and windowed, in parts; compiled for real chips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tools.libtpu import TOPOLOGIES
from jattn import attend, masks
from jattn.attention import decode
from tests import tpu_compile


def draw(b, s, h, g, d, e, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((b, h, d), (b, s, g, d), (b, s, g, e))
    return [jax.random.normal(k, shape, dtype) for k, shape in zip(keys, shapes, strict=True)]


def expected(query, key, value, lengths, window, sink):
    """By the reference in float64."""
    k_index = np.arange(key.shape[1])
    seen = k_index < np.asarray(lengths)[:, None]
    if window is not None:
        seen &= k_index >= np.asarray(lengths)[:, None] - window
    with jax.enable_x64(True):
        query, key, value = (jnp.asarray(x, jnp.float64) for x in (query, key, value))
        out, lse = attend(
            query[:, None], key, value, mask=jnp.asarray(seen[:, None, None]),
            sink=None if sink is None else jnp.asarray(sink, jnp.float64),
            return_lse=True, implementation="reference",
        )  # fmt: skip
        return np.asarray(out[:, 0]), np.asarray(lse[:, 0])


CASES = {  # s, heads, groups, d, e, lengths, window, sink, splits
    "grouped": (300, 6, 2, 16, 24, (300, 1, 0, 129), None, False, 1),
    "window_in_parts": (300, 4, 4, 40, 8, (257, 300, 5), 100, True, 3),
    "one_group": (7, 3, 1, 8, 8, (7, 2), None, True, 2),
}


@pytest.mark.kernels
@pytest.mark.parametrize("implementation", ["xla", "pallas"])
@pytest.mark.parametrize("name", CASES)
def test_values(name, implementation):
    s, h, g, d, e, lengths, window, with_sink, splits = CASES[name]
    query, key, value = draw(len(lengths), s, h, g, d, e)
    sink = jnp.linspace(-1.0, 1.0, h) if with_sink else None
    lengths = jnp.array(lengths)
    hidden = (jnp.arange(s) >= lengths[:, None])[..., None, None]
    run = jax.jit(decode, static_argnames=("window", "splits", "return_lse", "implementation"))
    out, lse = run(
        query, jnp.where(hidden, jnp.nan, key), jnp.where(hidden, jnp.nan, value), lengths,
        window=window, sink=sink, splits=splits, return_lse=True, implementation=implementation,
    )  # fmt: skip
    want, want_lse = expected(query, key, value, lengths, window, sink)
    np.testing.assert_allclose(out, want, atol=2e-6)
    np.testing.assert_allclose(lse, want_lse, atol=2e-6)


@pytest.mark.kernels
@pytest.mark.parametrize("implementation", ["xla", "pallas"])
def test_half_precision(implementation):
    query, key, value = draw(2, 200, 4, 2, 64, 64, jnp.bfloat16)
    lengths = jnp.array([200, 77])
    out = decode(query, key, value, lengths, implementation=implementation)
    assert out.dtype == jnp.bfloat16
    want, _ = expected(query, key, value, lengths, None, None)
    error = np.asarray(out, np.float64) - want
    assert np.sqrt((error**2).mean() / (want**2).mean()) <= 4e-3


def paged(cache, size, extra=3):
    """The cache `[b, s, g, d]` in pages of a pool, in disorder, and where they lie."""
    b, s, *rest = cache.shape
    count = -(-s // size)
    rows = jnp.pad(cache, [(0, 0), (0, count * size - s), (0, 0), (0, 0)])
    rows = rows.reshape(b * count, size, *rest)
    order = np.random.default_rng(0).permutation(b * count + extra)[: b * count]
    pool = jnp.full((b * count + extra, size, *rest), jnp.nan).at[order].set(rows)
    return pool, order.reshape(b, count)


NEW = {  # tokens, lengths, window, splits, page
    "pages": (1, (50, 17, 0), None, 1, 16),
    "tokens": (4, (50, 17, 2), None, 2, None),
    "tokens of a window, in pages": (5, (50, 17, 4), 7, 2, 8),
}


@pytest.mark.kernels
@pytest.mark.parametrize("implementation", ["xla", "pallas"])
@pytest.mark.parametrize("name", NEW)
def test_new_tokens_and_pages_are_attention_to_all_keys(name, implementation):
    tokens, lengths, window, splits, page = NEW[name]
    b, s, h, g, d, e = 3, 56, 4, 2, 8, 12
    _, key, value = draw(b, s, h, g, d, e)
    query = jax.random.normal(jax.random.key(5), (b, tokens, h, d))
    lengths, sink = jnp.array(lengths), jnp.linspace(-1.0, 1.0, h)
    # A value that is not finite: only a sequence's last token may see it.
    value = value.at[0, 49].set(jnp.nan)
    hidden = (jnp.arange(s) >= lengths[:, None])[..., None, None]
    near = masks.causal(lengths - tokens)
    if window is not None:
        near = near & masks.sliding_window(window, 0, lengths - tokens)
    want, want_lse = attend(
        query, key, value, mask=near, sink=sink, return_lse=True, implementation="reference"
    )
    keys, values, pages = jnp.where(hidden, jnp.nan, key), jnp.where(hidden, jnp.nan, value), None
    if page is not None:
        (keys, pages), (values, _) = paged(keys, page), paged(values, page)
        # What no sequence reaches may be anything.
        pages = np.where(np.arange(pages.shape[1]) * page < np.asarray(lengths)[:, None], pages, -1)
    given = query if tokens > 1 else query[:, 0]
    out, lse = decode(
        given, keys, values, lengths, pages=pages, window=window, sink=sink, splits=splits,
        return_lse=True, implementation=implementation,
    )  # fmt: skip
    assert out.shape == (*given.shape[:-1], e)
    assert lse.shape == given.shape[:-1]
    want, want_lse = (x.reshape(*given.shape[:-1], *x.shape[3:]) for x in (want, want_lse))
    assert np.isnan(np.asarray(want)).any()
    np.testing.assert_allclose(out, want, atol=2e-6)
    # What becomes of a sum of NaN weights is no part of the contract.
    known = ~np.isnan(np.asarray(want)).any(-1)
    np.testing.assert_allclose(lse[known], want_lse[known], atol=2e-6)


def test_bias_modification_and_gradient_of_new_tokens(x64):
    tokens, s, lengths = 3, 9, jnp.array([9, 5])
    _, key, value = draw(2, s, 4, 2, 4, 4, jnp.float64)
    query = jax.random.normal(jax.random.key(5), (2, tokens, 4, 4), jnp.float64)
    bias = jax.random.normal(jax.random.key(6), (4, tokens, s), jnp.float64)
    offset = lengths - tokens

    def modified(score, batch, head, i, j):
        return score - 0.1 * (head + 1) * (i - j)

    def ours(query, key, value, bias):
        return decode(query, key, value, lengths, bias=bias, score_mod=modified)

    def plain(query, key, value, bias):
        shifted = lambda score, batch, head, i, j: modified(
            score, batch, head, i + offset[batch], j
        )
        mask = masks.causal(offset)
        return attend(
            query, key, value, bias=bias, mask=mask, score_mod=shifted, implementation="reference"
        )

    pulled = jax.random.normal(jax.random.key(7), query.shape, jnp.float64)
    got, want = (
        jax.jit(jax.value_and_grad(lambda *x, f=f: (f(*x) * pulled).sum(), argnums=(0, 1, 2, 3)))(
            query, key, value, bias
        )
        for f in (ours, plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


@pytest.mark.libtpu
@pytest.mark.kernels
@pytest.mark.parametrize(
    "chip",
    ["v5e", *(pytest.param(c, marks=pytest.mark.slow) for c in ("v6e", "v5p", "tpu7x"))],
)
def test_compiles_for_every_chip(chip):
    report = tpu_compile.run(
        f"""
from jattn.attention import decode
for h, g, d in ((8, 2, 128), (8, 8, 64), (3, 3, 80)):
    query = jax.ShapeDtypeStruct((4, h, d), jnp.bfloat16)
    cache = jax.ShapeDtypeStruct((4, 4096, g, d), jnp.bfloat16)
    lengths = jax.ShapeDtypeStruct((4,), jnp.int32)
    compiled = compile_on_one(
        "{TOPOLOGIES[chip]}", lambda *x: decode(*x, window=1000, splits=2),
        query, cache, cache, lengths,
    )
    report(d=d, kernel="decode" in compiled.as_text(),
           temporaries=compiled.memory_analysis().temp_size_in_bytes)
# Four new tokens, and a cache in pages of 64 keys.
query = jax.ShapeDtypeStruct((4, 4, 8, 128), jnp.bfloat16)
pool = jax.ShapeDtypeStruct((300, 64, 2, 128), jnp.bfloat16)
pages = jax.ShapeDtypeStruct((4, 64), jnp.int32)
compiled = compile_on_one(
    "{TOPOLOGIES[chip]}", lambda *x: decode(*x[:4], pages=x[4], window=1000, splits=2),
    query, pool, pool, lengths, pages,
)
report(d=128, kernel="decode" in compiled.as_text(),
       temporaries=compiled.memory_analysis().temp_size_in_bytes)
"""
    )
    assert len(report) == 4
    for facts in report:
        assert facts["kernel"]
        # Keys of whole registers stay where they lie, 4 MiB a sequence.
        assert facts["d"] != 128 or facts["temporaries"] < 2**20, facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": jnp.array([1])}, r"lengths: expected shape \[b=2\]"),
        ({"splits": 9}, "splits: expected 1 to s=8, got 9"),
        ({"window": 0}, "window: expected at least 1, got 0"),
        ({"sink": jnp.zeros(3)}, r"sink: expected shape \[h=4\]"),
        ({"implementation": "triton"}, "implementation: expected one of"),
        ({"query": jnp.ones((2, 3, 4))}, "key: expected heads that divide h=3, got g=2"),
        ({"pages": jnp.array([[0], [2]])}, "pages: expected 0 to 1, got 2"),
        ({"pages": jnp.array([[0]])}, r"pages: expected shape \[b=2, m=1\]"),
        ({"pages": jnp.ones((2, 1))}, "pages: expected an integer array, got float32"),
    ],
)
def test_bad_arguments_are_named(plain_checks, change, message):
    arguments = {
        "query": jnp.ones((2, 4, 4)),
        "key": jnp.ones((2, 8, 2, 4)),
        "value": jnp.ones((2, 8, 2, 4)),
        "lengths": jnp.array([1, 2]),
    }
    with pytest.raises(ValueError, match=message):
        decode(**(arguments | change))
