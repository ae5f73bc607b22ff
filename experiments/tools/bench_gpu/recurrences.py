"""Recurrences on a GPU: sorts of them, what contends, and one row of the table."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments.tools.bench_gpu.attention import TOKENS, WIDTH, draw
from experiments.tools.bench_gpu.timing import Contender, farthest, ratio, times, with_gradients
from jattn import recur

LENGTH = 8192
HEAD = ("recurrence", "t", "d", "pass", "ours ms", "chunked ms", "scan ms", "chunked / ours",
        "scan / ours")  # fmt: skip

# name: (decay, whether there is a beta)
RECURRENCES: dict[str, tuple[str | None, bool]] = {
    "linear": (None, False),
    "decay per head": ("head", False),
    "decay per channel": ("channel", False),
    "delta rule": (None, True),
    "gated delta rule": ("head", True),
    "delta rule, decay per channel": ("channel", True),
}


def recurrent_contenders() -> dict[str, Contender]:
    """Functions of a dictionary of `recur`'s arrays, by name."""
    options: dict[str, dict[str, Any]] = {
        "ours": dict(implementation="pallas"),
        "chunked": dict(implementation="xla", mode="chunk"),
        "scan": dict(implementation="xla", mode="scan"),
    }
    call = lambda x, **more: recur(**x, **more)
    return {name: functools.partial(call, **more) for name, more in options.items()}


def draw_recurrent(name: str, b: int, t: int, h: int, d: int) -> tuple[dict[str, jax.Array], Any]:
    """Arrays for `recur`, keys of unit norm and some ten tokens' memory; the output's gradient."""
    decay, delta = RECURRENCES[name]
    query, key, value, d_out = draw(b, t, h, d)
    key = key.astype(jnp.float32)
    key = (key / jnp.linalg.norm(key, axis=-1, keepdims=True)).astype(jnp.bfloat16)
    arrays = {"query": query, "key": key, "value": value}
    chance = functools.partial(jax.random.uniform, dtype=jnp.float32)
    if decay:
        shape = (b, t, h) if decay == "head" else (b, t, h, d)
        arrays["decay"] = -0.2 * chance(jax.random.key(1), shape)
    if delta:
        arrays["beta"] = chance(jax.random.key(2), (b, t, h))
    return arrays, d_out


def recurrent_apart(name: str, d: int) -> float:
    """The same for a recurrence, from the chunked form in float32."""
    arrays, d_out = draw_recurrent(name, 2, 1000, 4, d)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), arrays)
    results = []
    named = recurrent_contenders()
    for name, x, precision in (("ours", arrays, "default"), ("chunked", wide, "highest")):
        with jax.default_matmul_precision(precision):
            out = jax.jit(named[name])(x)
            gradients = jax.jit(with_gradients(named[name]))(x, d_out.astype(out.dtype))
        results.append([out, *jax.tree.leaves(gradients)])
    return farthest(*results)


def recurrent_row(name: str, d: int, gradients: bool, repeats: int, tokens: int) -> tuple:
    """The cells of a line of the table; arguments as in `attention.row`."""
    t = min(LENGTH, tokens)
    h = max(WIDTH * tokens // TOKENS // d, 1)
    inputs = draw_recurrent(name, tokens // t, t, h, d)[: 2 if gradients else 1]
    found = times(recurrent_contenders(), inputs, gradients, repeats)
    direction = "forward + backward" if gradients else "forward"
    return (name, t, d, direction, *found.values(), ratio(found, "chunked"), ratio(found, "scan"))
