"""Attention on a GPU: sorts of it, what contends, and one row of the table."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.tools.bench_gpu.timing import Contender, farthest, ratio, times, with_gradients
from jattn import attend, masks
from jattn.attention import scores

TOKENS, WIDTH, WINDOW = 16384, 2048, 1024
HEAD = ("attention", "t", "d", "pass", "ours ms", "cuDNN ms", "dense ms", "TFLOP/s",
        "cuDNN / ours", "dense / ours")  # fmt: skip


class Variant(NamedTuple):
    """One sort of attention.

    Attributes:
        name: for the table.
        options: of `attend`.
        rival: of `jax.nn.dot_product_attention`; None where it has no such thing.
        share: the part of the pairs that is left, of t tokens.
    """

    name: str
    options: Callable[[int, int], dict[str, Any]]
    rival: dict[str, Any] | None
    share: Callable[[int], float]


def _packed(t: int) -> masks.Mask:
    """Four sequences in one."""
    return masks.segments(jnp.repeat(jnp.arange(4), t // 4)[None]) & masks.causal()


def _only_causal(name: str, **more: Callable[[int], Any]) -> Variant:
    """Causal attention with more options, made from the number of heads; no rival has them."""

    def options(t: int, h: int) -> dict[str, Any]:
        return {"mask": masks.causal()} | {key: make(h) for key, make in more.items()}

    return Variant(f"causal, {name}", options, None, lambda t: 0.5)


VARIANTS = (
    Variant("full", lambda t, h: {}, {}, lambda t: 1),
    Variant("causal", lambda t, h: dict(mask=masks.causal()), dict(is_causal=True), lambda t: 0.5),
    Variant(
        "window",
        lambda t, h: dict(mask=masks.sliding_window(WINDOW)),
        dict(is_causal=True, local_window_size=(WINDOW - 1, 0)),
        lambda t: (min(WINDOW, t) / t) * (1 - min(WINDOW, t) / t / 2),
    ),
    _only_causal("soft cap", score_mod=lambda h: scores.soft_cap(30.0)),
    _only_causal("ALiBi", score_mod=scores.alibi),
    _only_causal("sink", sink=jnp.zeros),
    Variant("packed by 4", lambda t, h: dict(mask=_packed(t)), None, lambda t: 0.125),
)


def contenders(variant: Variant, t: int, h: int) -> dict[str, Contender]:
    """Functions of query, key and value, by name."""
    options = variant.options(t, h)
    found: dict[str, Contender] = {
        "ours": functools.partial(attend, implementation="pallas", **options)
    }
    if variant.rival is not None:
        for name, implementation in (("cuDNN", "cudnn"), ("dense", "xla")):
            found[name] = functools.partial(
                jax.nn.dot_product_attention, implementation=implementation, **variant.rival
            )
    else:
        found["dense"] = functools.partial(attend, implementation="reference", **options)
    return found


def draw(b: int, t: int, h: int, d: int) -> list[jax.Array]:
    """Query, key, value and the output's gradient, `[b, t, h, d]`."""
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(k, (b, t, h, d), jnp.bfloat16) for k in keys]


def apart(variant: Variant, d: int) -> float:
    """The largest relative distance of ours from dense float32, of the output and gradients."""
    t, h = 1000, 4  # Not a multiple of any block.
    inputs = draw(2, t, h, d)
    inputs[1:3] = [x[:, :, :2] for x in inputs[1:3]]
    results = []
    for implementation, dtype in (("pallas", jnp.bfloat16), ("reference", jnp.float32)):
        options = variant.options(t, h) | {"implementation": implementation}
        cast = [x.astype(dtype) for x in inputs]
        function = functools.partial(attend, **options)
        results.append([jax.jit(function)(*cast[:3]), *jax.jit(with_gradients(function))(*cast)])
    return farthest(*results)


def row(variant: Variant, t: int, d: int, gradients: bool, repeats: int, tokens: int) -> tuple:
    """The cells of a line of the table.

    Args:
        variant: what is asked.
        t: tokens of a sequence.
        d: size of a head.
        gradients: whether backward, too.
        repeats: runs of each contender.
        tokens: in all.
    """
    b, h = max(tokens // t, 1), max(WIDTH * tokens // TOKENS // d, 1)
    inputs = draw(b, t, h, d)[: 4 if gradients else 3]
    found = times(contenders(variant, t, h), inputs, gradients, repeats)
    flops = 4 * b * h * t * t * d * variant.share(t) * (3.5 if gradients else 1)
    ours = found["ours"]
    rate = None if ours is None else round(flops / ours / 1e9)
    timed = [found.get(name) for name in ("ours", "cuDNN", "dense")]
    direction = "forward + backward" if gradients else "forward"
    ratios = (ratio(found, "cuDNN"), ratio(found, "dense"))
    return (variant.name, t, d, direction, *timed, rate, *ratios)
