"""What the blockwise backend promises beyond the right numbers: memory, and tiles it skips."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from jattn import attend, masks
from jattn.attention import scores


def compiled(t, s, bias_shape=None, score_mod=None):
    query, key = (jax.ShapeDtypeStruct((1, n, 2, 16), jnp.float32) for n in (t, s))
    bias = jax.ShapeDtypeStruct(bias_shape or (1, 1, 1, 1), jnp.float32)

    def loss(query, key, bias, slopes):
        out, lse = attend(
            query, key, key, mask=masks.causal(s - t), bias=bias, sink=slopes[:, 0],
            score_mod=scores.relative_bias(slopes), return_lse=True, implementation="blockwise",
        )  # fmt: skip
        return (out**2).sum() + lse.sum()

    slopes = jax.ShapeDtypeStruct((2, 5), jnp.float32)
    return jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(query, key, bias, slopes).compile()


def test_temporary_memory_grows_with_the_length():
    small, large = (compiled(t, t).memory_analysis() for t in (4096, 8192))
    assert small is not None
    assert large is not None
    assert large.temp_size_in_bytes <= 2.05 * small.temp_size_in_bytes


@pytest.mark.parametrize("bias_shape", [(1, 2, 1, 1400), (1, 2, 1000, 1)])
def test_no_array_as_large_as_the_plane_of_scores(bias_shape):
    text = compiled(1000, 1400, bias_shape).as_text() or ""
    shapes = re.findall(r"\b(?:f32|s32|pred|u32|s64)\[([0-9,]+)\]", text)
    sizes = [math.prod(int(n) for n in shape.split(",")) for shape in set(shapes)]
    assert 1000 * 2 * 16 <= max(sizes) < 1000 * 1400


@pytest.mark.parametrize(
    ("mask", "tiles"),
    [
        (None, 64),
        (masks.causal(), 36),
        (masks.sliding_window(100), 15),
        (masks.causal() & masks.sliding_window(100) | masks.prefix(32), 8 + 7 + 6),
        (masks.block_diagonal(512), 16),
    ],
)
def test_only_tiles_with_something_in_them_are_visited(mask, tiles):
    x = jnp.ones((1, 8 * 256, 1, 4))
    assert schedule_tables(lambda mod: attend(x, x, x, mask=mask, score_mod=mod)) == tiles


def test_tiles_are_skipped_where_the_mask_is_known_at_run_time_only():
    x = jnp.ones((1, 8 * 256, 1, 4))
    ids = jnp.repeat(jnp.arange(4), 512)[None]

    def run(score_mod):
        def loss(x, ids):
            out = attend(x, x, x, mask=masks.segments(ids), score_mod=score_mod)
            return (out**2).sum()

        return jax.jit(jax.grad(loss))(x, ids)

    assert schedule_tables(run) == 16 + 16  # Forward and backward.


def schedule_tables(run):
    """How often a score modification is called while `run(score_mod)` runs."""
    count = 0

    def note():
        nonlocal count
        count += 1

    def score_mod(score, batch, head, q_index, k_index):
        jax.debug.callback(note)
        return score

    jax.block_until_ready(run(score_mod))
    jax.effects_barrier()
    return count
