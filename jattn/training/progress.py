"""Progress: a bar with the time left on a terminal, a plain line now and then elsewhere."""

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Tells that `count` more units are done, and the loss now, if there is one."""

    def __call__(self, count: int, loss: float | None = None) -> None: ...


@contextlib.contextmanager
def progress(console: Console, description: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Shows how far something is.

    Args:
        console: where to show it.
        description: what it is.
        total: units in all.
        start: units done before.

    Returns:
        A context manager giving `advance(count, loss=None)`.
    """
    show = _bar if console.is_terminal else _lines
    with show(console, description, total, start) as advance:
        yield advance


@contextlib.contextmanager
def _bar(console, description, total, start):
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, completed=start, loss="")

        def advance(count, loss=None):
            bar.advance(task, count)
            if loss is not None:
                bar.update(task, loss=f"loss {loss:.4g}")

        yield advance


@contextlib.contextmanager
def _lines(console, description, total, start):
    began = time.monotonic()
    done, printed = start, began

    def advance(count, loss=None):
        nonlocal done, printed
        done += count
        now = time.monotonic()
        if done < total and now - printed < SECONDS_BETWEEN_LINES:
            return
        printed = now
        elapsed = now - began
        left = elapsed / max(done - start, 1) * (total - done)
        tail = "" if loss is None else f", loss {loss:.4g}"
        console.print(
            f"{description}: {done}/{total}, {elapsed:.0f} s, {left:.0f} s left{tail}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    yield advance
