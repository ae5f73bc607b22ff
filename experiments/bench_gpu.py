"""Attention and recurrences on a GPU: our kernels and their rivals, timed in turn in one process.

    python -m experiments.bench_gpu                  all rows
    python -m experiments.bench_gpu --lengths=4096   some lengths
    make bench-gpu                                   the same as the first

First every variant is compared with the dense definition in float32 on the GPU itself. Then each
row times forward, and forward and backward, in bfloat16 with 16384 tokens and 2048 / d heads: the
median of `--repeats` runs, the contenders taking turns. What does not run, or does not fit, is a
dash. TFLOP/s count what a mask leaves of 4 b h t^2 d, 3.5 times with the backward pass. Recurrences
are the same number of tokens and heads, in sequences of 8192; their rivals are the chunked form in
XLA and `jax.lax.scan` over tokens. Exit status 3 if a kernel is wrong; without a GPU, one line says
so, and the status is 0.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
from absl import app, flags

from jattn import attend, masks, recur
from jattn.attention import scores

LENGTHS = flags.DEFINE_list("lengths", ["1024", "2048", "4096", "8192", "16384"], "Tokens t = s.")
DIMS = flags.DEFINE_list("dims", ["64", "128", "256"], "Head dimensions d = e.")
REPEATS = flags.DEFINE_integer("repeats", 20, "Runs of each contender, in turn; the median counts.")

TOKENS, WIDTH, WINDOW, RECURRENT_LENGTH = 16384, 2048, 1024, 8192
TOLERANCE = 1e-2  # Relative, root mean square; bfloat16 alone gives 2e-3 to 4e-3.

Contender = Callable[..., jax.Array]


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


def with_gradients(function: Contender) -> Callable[..., Any]:
    """A function of the gradient of the output too, that returns all gradients."""

    def both(*inputs):
        *given, d_out = inputs
        return jax.vjp(function, *given)[1](d_out)

    return both


def medians(functions: Sequence[Callable[[], Any]], repeats: int) -> list[float | None]:
    """Median seconds of each function, all in turn `repeats` times; None for one that fails."""
    alive: dict[int, list[float]] = {}
    for n, function in enumerate(functions):
        try:
            jax.block_until_ready(function())
            alive[n] = []
        except Exception as error:  # Out of memory, or not to be had: a dash in the table.
            print(f"  does not run: {str(error).splitlines()[0][:120]}", file=sys.stderr)
    for _ in range(repeats):
        for n, times in alive.items():
            start = time.perf_counter()
            jax.block_until_ready(functions[n]())
            times.append(time.perf_counter() - start)
    return [statistics.median(alive[n]) if alive.get(n) else None for n in range(len(functions))]


def draw(b: int, t: int, h: int, d: int) -> list[jax.Array]:
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
    return _farthest(*results)


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
    return _farthest(*results)


def _farthest(found: Sequence[jax.Array], wanted: Sequence[jax.Array]) -> float:
    distances = []
    for got, want in zip(found, wanted, strict=True):
        difference = got.astype(jnp.float32) - want
        distances.append(float(jnp.sqrt((difference**2).mean() / (want**2).mean())))
    return max(distances)


def _times(named: dict[str, Contender], inputs: Sequence[Any], gradients: bool):
    """Median seconds of each contender, by name."""
    wrap = with_gradients if gradients else (lambda function: function)
    programs = [jax.jit(wrap(function)) for function in named.values()]
    calls = [functools.partial(program, *inputs) for program in programs]
    return dict(zip(named, medians(calls, REPEATS.value), strict=True))


def _cell(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f}"


def _ratio(times: dict[str, float | None], name: str) -> str:
    ours, other = times["ours"], times.get(name)
    return "-" if ours is None or other is None else f"{other / ours:.2f}"


def _pass(gradients: bool) -> str:
    return "forward + backward" if gradients else "forward"


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def row(variant: Variant, t: int, d: int, gradients: bool) -> str:
    """A line of the table of attention."""
    b, h = TOKENS // t, WIDTH // d
    inputs = draw(b, t, h, d)[: 4 if gradients else 3]
    times = _times(contenders(variant, t, h), inputs, gradients)
    flops = 4 * b * h * t * t * d * variant.share(t) * (3.5 if gradients else 1)
    ours = times["ours"]
    rate = "-" if ours is None else f"{flops / ours / 1e12:.0f}"
    cells = [variant.name, t, d, _pass(gradients)]
    cells += [_cell(times.get(name)) for name in ("ours", "cuDNN", "dense")]
    return _line([*cells, rate, _ratio(times, "cuDNN"), _ratio(times, "dense")])


def recurrent_row(name: str, d: int, gradients: bool) -> str:
    """A line of the table of recurrences."""
    t = RECURRENT_LENGTH
    inputs = draw_recurrent(name, TOKENS // t, t, WIDTH // d, d)[: 2 if gradients else 1]
    times = _times(recurrent_contenders(), inputs, gradients)
    cells = [name, t, d, _pass(gradients), *map(_cell, times.values())]
    return _line([*cells, _ratio(times, "chunked"), _ratio(times, "scan")])


def main(argv: Sequence[str]) -> int:
    del argv
    if jax.default_backend() != "gpu":
        print(f"No GPU here (JAX sees {jax.default_backend()} only): nothing was measured.")
        return 0
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}, jaxlib {jaxlib.__version__}, bfloat16\n")
    dims = list(map(int, DIMS.value))
    wrong = 0
    attention = {f"{v.name}, d={d}": functools.partial(apart, v, d) for v in VARIANTS for d in dims}
    recurrent = {
        f"{n}, d={d}": functools.partial(recurrent_apart, n, d) for n in RECURRENCES for d in dims
    }
    for name, distance_of in (attention | recurrent).items():
        try:
            distance = distance_of()
        except NotImplementedError as reason:
            print(f"{name}: {reason}", flush=True)
            continue
        wrong += not distance < TOLERANCE
        print(f"{name}: {distance:.1e} from float32", flush=True)
    print("\n| attention | t | d | pass | ours ms | cuDNN ms | dense ms | TFLOP/s | cuDNN / ours "
          "| dense / ours |\n" + "|---" * 10 + "|")  # fmt: skip
    for variant in VARIANTS:
        for d in dims:
            for t in map(int, LENGTHS.value):
                for gradients in (False, True):
                    print(row(variant, t, d, gradients), flush=True)
    print("\n| recurrence | t | d | pass | ours ms | chunked ms | scan ms | chunked / ours "
          "| scan / ours |\n" + "|---" * 9 + "|")  # fmt: skip
    for name in RECURRENCES:
        for d in dims:
            for gradients in (False, True):
                print(recurrent_row(name, d, gradients), flush=True)
    return 3 if wrong else 0


if __name__ == "__main__":
    app.run(main)
