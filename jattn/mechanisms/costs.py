"""What every mechanism of the zoo costs at one size: parameters, operations, memory, time."""

import statistics
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from jattn.checks import check_count
from jattn.flops import flops
from jattn.mechanisms import zoo
from jattn.mechanisms.mechanism import Mechanism

QUERIES = 16  # of pointers


class Cost(NamedTuple):
    """One mechanism, measured.

    Attributes:
        name, kind, family: of its entry.
        causal: which form of a mixer; the causal one only where there is no other.
        parameters: how many numbers it learns, averages over training included.
        flops: operations of a call; a loop counts as often as it runs.
        temporaries: bytes that XLA sets aside for a call, beyond its inputs and outputs.
        microseconds: of a call, the median of several, on the default device; None: not timed.
    """

    name: str
    kind: str
    family: str
    causal: bool
    parameters: int
    flops: float
    temporaries: int
    microseconds: float | None


def table(
    names: Collection[str | tuple[str, Mapping[str, Any]]] | None = None,
    *,
    dim: int = 64,
    heads: int = 4,
    tokens: int = 256,
    batch: int = 1,
    calls: int = 5,
) -> Iterator[Cost]:
    """Measures mechanisms at one size, one after the other.

    Args:
        names: which, as `zoo.info` takes them, or `(name, options)`; default all. What has no
            options is as it is by default.
        dim: model dimension m.
        heads: of mixers; of other kinds their own default.
        tokens: of each row; a pointer gets 16 queries besides.
        batch: rows.
        calls: how often each is timed; 0: not at all.

    Returns:
        A `Cost` a mechanism, in the order of `names`, or of `zoo.names()`.

    Raises:
        ValueError: an unknown name, or a number below 1.

    Example:
        >>> [row] = table(["eca"], tokens=8, calls=0)
        >>> row.name, row.kind, row.parameters, row.microseconds
        ('efficient_channel_attention', 'gate', 3, None)
    """
    for name, number in (("dim", dim), ("heads", heads), ("tokens", tokens), ("batch", batch)):
        check_count(name, number)
    check_count("calls", calls, 0)
    asked = zoo.names() if names is None else names
    pairs = [(name, {}) if isinstance(name, str) else name for name in asked]
    entries = [(zoo.info(name), chosen) for name, chosen in pairs]
    return (_measured(*pair, dim, heads, tokens, batch, calls) for pair in entries)


def _measured(
    entry: Mechanism,
    chosen: Mapping[str, Any],
    dim: int,
    heads: int,
    tokens: int,
    batch: int,
    calls: int,
) -> Cost:
    """One row."""
    mixes = entry.kind == "mixer"
    causal = mixes and not entry.bidirectional
    options = {"heads": heads, "causal": causal} if mixes else {}
    made = zoo.make(entry.name, dim=dim, **options, **chosen)
    params = jax.jit(made.init)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (batch, tokens, dim))
    given = (x[:, :QUERIES], x) if entry.kind == "pointer" else (x,)
    program = jax.jit(made.apply)
    compiled = program.lower(params, *given).compile()
    memory = compiled.memory_analysis()
    return Cost(
        entry.name,
        entry.kind,
        entry.family,
        causal,
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        flops(jax.make_jaxpr(made.apply)(params, *given)),
        int(memory.temp_size_in_bytes) if memory is not None else 0,
        _time(compiled, (params, *given), calls) if calls else None,
    )


def _time(compiled, given: tuple, calls: int) -> float:
    """Microseconds of a call, the median of so many, after one that does not count."""
    jax.block_until_ready(compiled(*given))
    took = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*given))
        took.append(time.perf_counter() - start)
    return 1e6 * statistics.median(took)
