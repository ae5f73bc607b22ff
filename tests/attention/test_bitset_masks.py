"""Tables of blocks and of segments: values, tiles, kernels, and tables found at run time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import attend, masks
from jattn.attention.masks import EMPTY, FULL

RNG = np.random.default_rng(0)
B, H, T, S = 2, 4, 70, 130
BLOCK_Q, BLOCK_K, ROWS, COLUMNS = 16, 3, 4, 41  # Both end before the tokens do.
TABLE = RNG.random((B, H, ROWS, COLUMNS)) < 0.3
IDS = [RNG.integers(0, 40, (B, n)) for n in (T, S)]
ALLOW = RNG.random((40, 40)) < 0.3


def of_blocks(table):
    table = np.asarray(table)
    i, j = np.arange(T) // BLOCK_Q, np.arange(S) // BLOCK_K
    found = table[:, :, np.minimum(i, ROWS - 1)][..., np.minimum(j, COLUMNS - 1)]
    return found & (i < ROWS)[:, None] & (j < COLUMNS)


CASES = {
    "a table of each head": (
        lambda to: masks.blocks(to(TABLE), BLOCK_Q, BLOCK_K),
        of_blocks(TABLE),
    ),
    "one for all": (
        lambda to: masks.blocks(to(TABLE[:1, :1]), BLOCK_Q, BLOCK_K),
        of_blocks(TABLE[:1, :1]),
    ),
    "segments": (
        lambda to: masks.segment_table(to(ALLOW), *map(to, IDS)),
        ALLOW[IDS[0][:, :, None], IDS[1][:, None]][:, None],
    ),
}


@pytest.mark.parametrize("to", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("name", CASES)
def test_values_and_tiles(name, to):
    make, expected = CASES[name]
    mask = make(to)
    np.testing.assert_array_equal(mask.dense(T, S), expected)
    np.testing.assert_array_equal(mask.T.dense(S, T), expected.swapaxes(2, 3))
    for own, (t, s), (block_q, block_k) in (
        (mask, (T, S), (8, 32)), (mask, (T, S), (16, 3)), (mask.T, (S, T), (32, 8)),
    ):  # fmt: skip
        fitted = own.fit(-1, -1, t, s)
        tiles = np.asarray(fitted.tiles(t, s, block_q, block_k))
        values = np.asarray(own.dense(t, s))
        for i, j in np.ndindex(tiles.shape):
            cut = values[..., i * block_q :, j * block_k :][..., :block_q, :block_k]
            assert tiles[i, j] == (FULL if cut.all() else EMPTY if not cut.any() else 1)


@pytest.mark.parametrize("causal", [False, True])
def test_a_table_found_at_run_time_needs_no_new_program(causal):
    q, k, v = (jax.random.normal(jax.random.key(i), (B, T, H, 8)) for i in range(3))
    traces = []

    @jax.jit
    def run(q, k, v, table):
        traces.append(None)
        mask = masks.blocks(table, BLOCK_Q, 8)
        mask = mask & masks.causal() if causal else ~mask
        return attend(q, k, v, mask=mask, implementation="blockwise")

    for table in (TABLE[..., :9], ~TABLE[..., :9]):
        seen = np.repeat(np.repeat(table, BLOCK_Q, 2), 8, 3)[..., :T]
        seen = np.pad(seen, [(0, 0), (0, 0), (0, T - seen.shape[2]), (0, 0)])
        seen = seen & np.tril(np.ones((T, T), bool)) if causal else ~seen
        want = attend(q, k, v, mask=jnp.asarray(seen), implementation="reference")
        np.testing.assert_allclose(run(q, k, v, table), want, atol=3e-6)
    assert len(traces) == 1


@pytest.mark.kernels
@pytest.mark.parametrize("name", ["a table of each head", "segments"])
def test_kernels_take_them_forward_and_backward(name):
    make, expected = CASES[name]
    q = jax.random.normal(jax.random.key(0), (B, T, H, 8))
    k, v = (jax.random.normal(jax.random.key(i), (B, S, 2, 8)) for i in (1, 2))

    def loss(implementation):
        def of(q, k, v):
            mask = make(jnp.asarray) if implementation == "pallas" else jnp.asarray(expected)
            out = attend(q, k, v, mask=mask, implementation=implementation)
            return (out * jnp.cos(jnp.arange(8.0))).sum(), out

        return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2), has_aux=True))(q, k, v)

    got, want = loss("pallas"), loss("reference")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, want)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: masks.blocks(jnp.ones((2, 2), bool), 4, 4), "table: expected 4 axes"),
        (lambda: masks.blocks(jnp.ones((1, 1, 2, 2)), 4, 4), "table: expected a bool array"),
        (lambda: masks.blocks(jnp.ones((1, 1, 2, 2), bool), 0, 4), "block_q: expected at least 1"),
        (
            lambda: masks.blocks(jnp.ones((1, 3, 2, 2), bool), 4, 4).fit(2, 4, 8, 8),
            r"mask: expected a table of 1 or b=2 batch entries and 1 or h=4 heads, got \[1, 3\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(plain_checks, make, message):
    with pytest.raises(ValueError, match=message):
        make()
