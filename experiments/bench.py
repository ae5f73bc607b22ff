"""Speed and memory of the engines against what one would use otherwise, on this machine.

    python -m experiments.bench                 all tables
    python -m experiments.bench --only=attend   one of them
    make bench                                  the same

Both sides of a row are compiled, then timed in turn in one process, so that a busy machine slows
both; the median of `--repeats` runs counts. Temporary bytes are what the compiler reports. The
last columns give the speed-up and the saving of memory that the project promises on two CPU cores.
Exit status 3 if a promise is not kept.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from absl import logging

import jattn
from experiments.flags import Parser, count, some_of
from experiments.tools.bench_lm import language_model_times
from experiments.tools.bench_sdpa import Shape, torch_peer
from experiments.tools.bench_training import CPU_DEVICES, seconds_a_step, torch_seconds_a_step
from jattn.mechanisms.layers.norms import unit_norm
from jattn.mechanisms.linear.hedgehog import hedgehog_features
from jattn.mechanisms.linear.retention import log_gamma
from jattn.mechanisms.memory.networks import network, network_init
from jattn.mechanisms.memory.neural_memory import memory_step, neural_memory, start
from jattn.recurrence.feature_maps import FEATURE_MAPS, taylor_features
from jattn.training.cpu import split_cpu


class Row(NamedTuple):
    """One comparison. Times in seconds; a bar of 0 promises nothing."""

    case: str
    ours: float
    baseline: float
    ours_bytes: int
    baseline_bytes: int
    speed_bar: float
    memory_bar: float

    @property
    def met(self) -> bool:
        return (
            self.baseline >= self.speed_bar * self.ours
            and self.baseline_bytes >= self.memory_bar * self.ours_bytes
        )


def alternate(functions: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median time of each function in seconds, all of them run in turn `repeats` times."""
    times = [[] for _ in functions]
    for function in functions:
        jax.block_until_ready(function())
    for _ in range(repeats):
        for n, function in enumerate(functions):
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[n].append(time.perf_counter() - start)
    return [statistics.median(each) for each in times]


def compare(
    case: str,
    ours: Callable[..., jax.Array],
    baseline: Callable[..., jax.Array],
    inputs: Sequence[jax.Array],
    bars: Mapping[str, tuple[float, float]],
    repeats: int,
) -> Iterator[Row]:
    """Rows of two functions of the same inputs.

    Args:
        case: what is compared.
        ours: a function of `inputs` that returns one array.
        baseline: what it is compared with.
        inputs: arrays, all of which are differentiated.
        bars: for "forward" and "forward + backward", or one of them: how many times faster, and
            how many times less temporary memory, ours has to be.
        repeats: runs of each, in turn; their median counts.

    Yields:
        One row for each bar.
    """

    def gradient(function):
        everything = tuple(range(len(inputs)))
        return jax.grad(lambda *x: (function(*x).astype(jnp.float32) ** 2).sum(), everything)

    for mode, (speed_bar, memory_bar) in bars.items():
        wrap = gradient if "backward" in mode else lambda function: function
        programs = [jax.jit(wrap(f)).lower(*inputs).compile() for f in (ours, baseline)]
        times = alternate([lambda p=p: p(*inputs) for p in programs], repeats)
        memory = [_temporary_bytes(p) for p in programs]
        yield Row(
            f"{case}, {mode}", times[0], times[1], memory[0], memory[1], speed_bar, memory_bar
        )


def _temporary_bytes(program: Any) -> int:
    return program.memory_analysis().temp_size_in_bytes


def attend_rows(repeats: int) -> Iterator[Row]:
    """Causal softmax attention, float32, against `jax.nn.dot_product_attention`."""

    def ours(query, key, value):
        return jattn.attend(query, key, value, mask=jattn.masks.causal())

    def baseline(query, key, value):
        return jax.nn.dot_product_attention(query, key, value, is_causal=True)

    short = {"forward": (1 / 1.1, 0), "forward + backward": (1 / 1.1, 0)}
    long = {"forward": (2.5, 16), "forward + backward": (1.5, 15)}
    for t, heads, groups, d, bars in (
        (512, 8, 8, 64, short),
        (4096, 8, 8, 64, long),
        (3000, 8, 4, 80, long),
    ):
        keys = jax.random.split(jax.random.key(0), 3)
        inputs = [
            jax.random.normal(k, (1, t, h, d))
            for k, h in zip(keys, (heads, groups, groups), strict=True)
        ]
        case = f"T={t} heads={heads}/{groups} D={d}"
        yield from compare(case, ours, baseline, inputs, bars, repeats)


def window_rows(repeats: int) -> Iterator[Row]:
    """Windows of a sixteenth of 8192 tokens, float32, against all of them (and tiles of 256)."""
    length, window = 8192, 512
    query, key, value = (jax.random.normal(jax.random.key(i), (1, length, 8, 64)) for i in range(3))
    everything = lambda *x: jattn.attend(*x)
    masked = lambda mask: lambda *x: jattn.attend(*x, mask=mask)
    near = jattn.masks.neighborhood((length,), (window,))
    strided = jattn.masks.neighborhood((length,), (window,), stride=(window,))
    table = jnp.abs(jnp.arange(32)[:, None] - jnp.arange(32)) <= 1
    blocks = jattn.masks.blocks(table[None, None], 256, 256)
    share = float(table.mean())
    inputs, bars = (query, key, value), {"forward": (1.0, 0)}
    yield from compare("window, stride 1", masked(near), everything, inputs, bars, repeats)
    yield from compare(
        "window, stride 512, to stride 1", masked(strided), masked(near), inputs, bars, repeats
    )
    # 0.6 of what the share of tiles that are visited would give.
    for mode in ("forward", "forward + backward"):
        bars = {mode: (0.6 / share, 0)}
        case = f"blocks of 256, {share:.0%} visited"
        yield from compare(case, masked(blocks), everything, inputs, bars, repeats)


def peer_rows(repeats: int) -> Iterator[Row]:
    """Causal softmax attention, float32, against PyTorch's where it is installed."""
    attend = lambda *x: jattn.attend(*x, mask=jattn.masks.causal())
    gradient = jax.grad(lambda *x: (attend(*x) ** 2).sum(), (0, 1, 2))
    with torch_peer() as peer:
        if peer is None:
            print("PyTorch is not installed")
            return
        for shape in (Shape(512, 8, 8, 64), Shape(4096, 8, 8, 64), Shape(8192, 8, 8, 64),
                      Shape(3000, 8, 4, 80)):  # fmt: skip
            inputs = [
                jax.random.normal(jax.random.key(i), (1, shape.length, h, shape.dim))
                for i, h in enumerate((shape.heads, shape.groups, shape.groups))
            ]
            case = f"T={shape.length} heads={shape.heads}/{shape.groups} D={shape.dim}"
            for mode, function in (("forward", attend), ("forward + backward", gradient)):
                program = jax.jit(function).lower(*inputs).compile()
                ours, theirs = [], []
                for _ in range(repeats + 1):
                    start = time.perf_counter()
                    jax.block_until_ready(program(*inputs))
                    ours.append(time.perf_counter() - start)
                    theirs.append(peer.seconds(shape, "backward" in mode))
                mine, other = (statistics.median(each[1:]) for each in (ours, theirs))
                yield Row(f"{case}, {mode}", mine, other, 0, 0, 1.0, 0.0)


def train_rows(_: int) -> Iterator[Row]:
    """A training step of in-context regression, against eager PyTorch where it is installed."""
    theirs = torch_seconds_a_step()
    if theirs is None:
        print("PyTorch is not installed: only our own time is shown")
    ours = seconds_a_step()
    bar = 0 if theirs is None else 3
    yield Row("2 heads, batch 256, one seed", ours, theirs or ours, 0, 0, bar, 0)


# A table is a function of the number of runs that yields rows; its docstring is the heading.
def recur_rows(repeats: int) -> Iterator[Row]:
    """Recurrence in chunks, float32: against its quadratic form, then decays against none."""
    keys = jax.random.split(jax.random.key(0), 4)
    query, key, value, gate = (jax.random.normal(k, (1, 4096, 8, 64)) for k in keys)
    key = key / jnp.linalg.norm(key, axis=-1, keepdims=True)
    gate = jax.nn.log_sigmoid(gate) / 16
    write = jax.nn.sigmoid(gate[..., 0])

    def chunked(query, key, value, decay=None, beta=None):
        return jattn.recur(query, key, value, decay=decay, beta=beta, mode="chunk")

    def plain(query, key, value, *_):
        return chunked(query, key, value)

    def parallel(query, key, value):
        return jattn.recur(query, key, value, mode="parallel")

    def delta(query, key, value, beta):
        return chunked(query, key, value, None, beta)

    bars = {"forward": (15, 0), "forward + backward": (10, 0)}
    yield from compare("linear attention", chunked, parallel, (query, key, value), bars, repeats)
    for case, gated, gates, bar in (
        ("decay per head", chunked, (gate[..., 0],), 1 / 1.5),
        ("decay per channel", chunked, (gate,), 1 / 1.5),
        ("delta rule", delta, (write,), 0),
        ("decay per head, delta rule", chunked, (gate[..., 0], write), 0),
    ):
        bars = {"forward": (bar, 0), "forward + backward": (bar, 0)}
        yield from compare(case, gated, plain, (query, key, value, *gates), bars, repeats)


def family_rows(repeats: int) -> Iterator[Row]:
    """Mechanisms over the recurrence, in chunks, against their quadratic forms, float32."""
    keys = jax.random.split(jax.random.key(0), 5)
    heads, d = 2, 64
    query, key, value, gate = (jax.random.normal(k, (1, 4096, heads, d)) for k in keys[:4])
    unit_query, unit_key = unit_norm(query), unit_norm(key)
    gate = jax.nn.log_sigmoid(gate) / 16
    write = jax.nn.sigmoid(gate[..., 0])
    maps = jnp.tile(jnp.eye(d), (heads, 1, 1))
    small_query, small_key = query[..., :16] / 2, key[..., :16] / 2
    fading = jnp.broadcast_to(log_gamma(heads), gate.shape[:3])
    ones = jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1)

    def recurrence(gates: Sequence[str], mode: Any, features: Callable = lambda x: x):
        def run(query, key, value, *arrays):
            named = dict(zip(gates, arrays, strict=True))
            return jattn.recur(features(query), features(key), value, mode=mode, **named)

        return run

    def second_order(x):
        return jnp.concatenate(taylor_features(x, 2), -1)

    def normalized(mode: Any, features: Callable):
        sums = recurrence((), mode, features)

        def run(query, key, value):
            out = sums(query, key, value)
            return out[..., :-1] / (out[..., -1:] + 1e-6)

        return run

    bars = {"forward + backward": (15.0, 0.0)}
    for name, features, inputs in (
        ("linear_attention", FEATURE_MAPS["elu1"], (query, key, ones)),
        ("hedgehog", lambda x: hedgehog_features(x, maps), (query, key, ones)),
        ("taylor_attention", second_order, (small_query, small_key, ones)),
    ):
        chunked, parallel = (normalized(mode, features) for mode in ("chunk", "parallel"))
        yield from compare(name, chunked, parallel, inputs, bars, repeats)
    for name, gates, inputs in (
        ("retention", ("decay",), (query, key, value, fading)),
        ("gated_linear_attention", ("decay",), (query, key, value, gate)),
        ("delta_rule", ("beta",), (unit_query, unit_key, value, write)),
        ("gated_delta_rule", ("decay", "beta"), (unit_query, unit_key, value, fading, write)),
    ):
        chunked, parallel = (recurrence(gates, mode) for mode in ("chunk", "parallel"))
        yield from compare(name, chunked, parallel, inputs, bars, repeats)


def memory_rows(repeats: int) -> Iterator[Row]:
    """Memories that are networks of two layers, in chunks, against a scan over tokens, float32."""
    heads, d, refresh = 2, 32, 16
    of_network, of_tokens, of_rates = jax.random.split(jax.random.key(0), 3)
    query, key, value = jax.random.normal(of_tokens, (3, 1, 1024, heads, d))
    query, key = unit_norm(query), unit_norm(key)
    rates = jax.nn.sigmoid(jax.random.normal(of_rates, (3, *key.shape[:3])) - 4)

    for name, residual_norm in (("x + norm(mlp)", True), ("mlp", False)):
        make = lambda key: network_init(key, d, residual_norm=residual_norm)  # noqa: B023
        params0 = jax.vmap(make)(jax.random.split(of_network, heads))

        def chunked(*arrays, params0=params0):
            return neural_memory(params0, *arrays, apply_fn=network, refresh=refresh)[0]

        def by_token(*arrays, params0=params0):
            step = lambda state, token: memory_step(
                state, *token, apply_fn=network, refresh=refresh
            )
            run = lambda params0, *tokens: jax.lax.scan(step, start(params0), tokens)[1]
            tokens = (jnp.moveaxis(x[0], 1, 0) for x in arrays)
            return jnp.moveaxis(jax.vmap(run)(params0, *tokens), 0, 1)[None]

        bars = {"forward + backward": (5.0, 0.0)}
        inputs = (query, key, value, *rates)
        yield from compare(f"memory {name}", chunked, by_token, inputs, bars, repeats)


def language_model_rows(repeats: int) -> Iterator[Row]:
    """SmolLM2-135M, float32, against transformers on PyTorch where it is installed."""
    try:
        for case, ours, theirs, bar in language_model_times(repeats):
            yield Row(case, ours, theirs or ours, 0, 0, bar if theirs else 0, 0)
    except ImportError as error:
        print(error)


TABLES: dict[str, Callable[[int], Iterator[Row]]] = {
    "attend": attend_rows,
    "peer": peer_rows,
    "windows": window_rows,
    "recur": recur_rows,
    "family": family_rows,
    "memory": memory_rows,
    "train": train_rows,
    "lm": language_model_rows,
}

_HEADER = f"{'case':42} {'ours':>8} {'base':>8} {'speed':>6} {'bar':>5} {'less':>6} {'bar':>5} met"


def print_table(name: str, rows: Iterator[Row]) -> bool:
    """Prints rows as they come; True if all bars are met."""
    print(f"\n{name}: {TABLES[name].__doc__}")
    print(f"{'':42} {'ms':>8} {'ms':>8} {'x':>6} {'x':>5} {'bytes':>6} {'x':>5}\n{_HEADER}")
    all_met = True
    for row in rows:
        less = f"{row.baseline_bytes / row.ours_bytes:6.1f}" if row.ours_bytes else f"{'-':>6}"
        print(
            f"{row.case:42} {row.ours * 1e3:8.1f} {row.baseline * 1e3:8.1f} "
            f"{row.baseline / row.ours:6.2f} {row.speed_bar:5.2f} "
            f"{less} {row.memory_bar:5.1f} {'yes' if row.met else 'NO'}",
            flush=True,
        )
        all_met &= row.met
    return all_met


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; see the module's docstring."""
    parser = Parser("bench", __doc__)
    tables = some_of("table", TABLES)
    parser.add_argument("--only", type=tables, default=list(TABLES), help="tables; default: all")
    parser.add_argument(
        "--repeats", type=count, default=15, help="runs of each side, in turn; the median counts"
    )
    chosen = parser.parse_args(argv)
    logging.set_verbosity(logging.ERROR)
    split_cpu(CPU_DEVICES)  # the engines use the first of them, training uses both
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} ({device.device_kind})")
    met = [print_table(name, TABLES[name](chosen.repeats)) for name in chosen.only]
    sys.exit(0 if all(met) else 3)


if __name__ == "__main__":
    main()
