"""What the attention kernels for GPUs must compute: cases with every option, and how to compare.

The tests run them interpreted, the benchmark on the device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jattn import masks
from jattn.attention import scores
from jattn.attention.attention_args import bind
from jattn.attention.reference import reference

IDS = jnp.repeat(jnp.arange(4), 50)[None]
TABLE = np.random.default_rng(0).random((1, 2, 8, 8)) < 0.4  # blocks of each head
FIRST = np.maximum(np.arange(200) - 90, 0)
SMALL = dict(b=1, t=200, s=200, h=2, gk=1, gv=1, d=64, e=64)

# name: (sizes, options of `attend`); bias, sink and slopes are differentiated.
CASES: dict = {
    "grouped": (SMALL | dict(t=150, s=70, h=3, d=40, e=72), dict(mask=masks.causal(-20))),
    "plain": (SMALL | dict(t=130, s=70, h=6, gk=2, gv=3), dict(scale=0.3)),
    "window": (SMALL | dict(t=300, s=300), dict(mask=masks.sliding_window(50))),
    "packed": (SMALL, dict(mask=masks.segments(IDS) & masks.causal(), sink=jnp.array([0.5, -1.0]))),
    "blocks": (SMALL, dict(mask=masks.blocks(TABLE, 25, 25) & masks.causal())),
    "range": (SMALL, dict(mask=masks.key_range(FIRST, FIRST + 40))),
    "lengths": (SMALL | dict(b=2), dict(mask=masks.prefix(jnp.array([190, 0])))),
    "not": (
        SMALL,
        dict(mask=~masks.block_diagonal(70), sink=jnp.linspace(-1, 1, 400).reshape(1, 200, 2)),
    ),
    "wide": (SMALL | dict(t=70, s=130, h=1, d=256, e=256), dict(mask=masks.causal(60))),
    "capped": (SMALL, dict(score_mod=scores.soft_cap(2.0), mask=masks.causal())),
    "alibi": (SMALL, dict(score_mod=scores.alibi(2), mask=masks.causal())),
    "heated": (SMALL, dict(score_mod=scores.temperature(jnp.array([1.5, 3.0])))),
    "bias": (
        SMALL | dict(s=130),
        dict(bias=jnp.sin(jnp.arange(260.0)).reshape(1, 2, 1, 130), mask=masks.causal()),
    ),
    "biased": (
        SMALL | dict(t=70, gk=2, gv=2, s=130, d=192, e=192),
        dict(bias=jnp.sin(jnp.arange(70.0))[:, None], slopes=jnp.array([0.1, 0.02])),
    ),
    "learned": (SMALL, dict(slopes=jnp.array([0.1, 0.02]), mask=masks.causal())),
}


def draw(
    b: int, t: int, s: int, h: int, gk: int, gv: int, d: int, e: int, dtype: Any = jnp.bfloat16
) -> tuple[jax.Array, ...]:
    """Query, key, value, and the gradients of output and log-sum-exp."""
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = (b, t, h, d), (b, s, gk, d), (b, s, gv, e), (b, t, h, e)
    arrays = [jax.random.normal(k, shape, dtype) for k, shape in zip(keys, shapes, strict=False)]
    return *arrays, jax.random.normal(keys[4], (b, t, h))


def with_gradients(
    run: Callable[[Any], Any],
    arrays: Sequence[jax.Array],
    options: Mapping[str, Any],
    float64: bool = False,
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    """out, lse and gradients of sum(out * d_out) + sum(lse * d_lse), the last where finite."""
    options = dict(options)
    extra = {name: options.pop(name) for name in ("bias", "sink", "slopes") if name in options}
    if float64:
        wide = lambda x: jnp.asarray(np.asarray(x, np.float64))
        arrays, extra = jax.tree.map(wide, (arrays, extra))
    *inputs, d_out, d_lse = arrays

    def loss(inputs, extra):
        extra = dict(extra)
        slopes = extra.pop("slopes", None)
        mod = {} if slopes is None else {"score_mod": scores.alibi(slopes)}
        out, lse = run(bind(*inputs, return_lse=True, **options, **mod, **extra))[:2]
        wide = lse.dtype
        total = (out.astype(wide) * d_out.astype(wide)).sum()
        return total + jnp.where(jnp.isfinite(lse), lse * d_lse, 0).sum(), (out, lse)

    (_, results), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(inputs, extra)
    return results, gradients


def apart(got: Any, want: Any) -> float:
    """Root mean square of the difference, relative."""
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    return float(np.sqrt(((got - want) ** 2).mean() / (want**2).mean()))


def distance(name: str, run: Callable[[Any], Any]) -> float:
    """The largest relative distance of a kernel's output and gradients from the definition.

    Args:
        name: of CASES.
        run: from bound arguments to output and log-sum-exp.
    """
    sizes, options = CASES[name]
    arrays = draw(**sizes)
    wide = [x.astype(jnp.float32) for x in arrays]
    got = jax.jit(lambda arrays: with_gradients(run, arrays, options))(arrays)
    with jax.default_matmul_precision("highest"):
        want = jax.jit(lambda arrays: with_gradients(reference, arrays, options))(wide)
    (out, _), gradients = got
    (want_out, _), want_gradients = want
    pairs = zip(jax.tree.leaves((out, gradients)), jax.tree.leaves((want_out, want_gradients)),
                strict=True)  # fmt: skip
    return max(apart(*pair) for pair in pairs)
