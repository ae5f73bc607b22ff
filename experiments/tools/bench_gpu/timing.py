"""Timing contenders in turn, and how rows and cells of tables look."""

import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Contender = Callable[..., jax.Array]


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


def times(
    named: dict[str, Contender], inputs: Sequence[Any], gradients: bool, repeats: int
) -> dict[str, float | None]:
    """Median milliseconds of each contender, by name; None for one that fails.

    Args:
        named: the contenders.
        inputs: what each is called with; with gradients, the output's gradient last.
        gradients: whether backward, too.
        repeats: runs of each, in turn.
    """
    wrap = with_gradients if gradients else (lambda function: function)
    programs = [jax.jit(wrap(function)) for function in named.values()]
    calls = [functools.partial(program, *inputs) for program in programs]
    found = medians(calls, repeats)
    rounded = [None if x is None else round(1e3 * x, 4) for x in found]
    return dict(zip(named, rounded, strict=True))


def farthest(found: Sequence[jax.Array], wanted: Sequence[jax.Array]) -> float:
    """The largest relative distance of arrays from others, root mean square."""
    distances = []
    for got, want in zip(found, wanted, strict=True):
        difference = got.astype(jnp.float32) - want
        distances.append(float(jnp.sqrt((difference**2).mean() / (want**2).mean())))
    return max(distances)


def ratio(times: dict[str, float | None], name: str) -> float | None:
    """How many times as long as ours another takes."""
    ours, other = times.get("ours"), times.get(name)
    return None if ours is None or other is None else round(other / ours, 2)


def line(cells: Sequence[Any]) -> str:
    """A row of a table; what there is not is a dash."""
    said = ("-" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells)
    return "| " + " | ".join(said) + " |"
