"""Numbers over time: one JSON line each in `metrics.jsonl`, and TensorBoard events."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jax.typing import ArrayLike


class Metrics:
    """Appends to `metrics.jsonl` and to TensorBoard events in the same folder.

    A run that resumes works out again what it noted after its last checkpoint. A line that is
    there already is therefore not written twice, so the file is the same as if the run had never
    stopped; for that, lines hold no clock.

    Args:
        workdir: the folder, which exists.
    """

    def __init__(self, workdir: Path):
        self._workdir, self._events = workdir, None
        path = workdir / "metrics.jsonl"
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        self._known = {_identity(json.loads(line)) for line in whole.splitlines()}
        self._file = path.open("ab")
        self._file.truncate(len(whole))  # a kill may have left half a line

    def log(self, step: int, name: str, scalars: Mapping[str, ArrayLike]) -> None:
        """Notes scalars of `name` at `step`; numbers that are not finite become null."""
        numbers = {field: float(np.asarray(value)) for field, value in scalars.items()}
        line = {"step": int(step), "name": name} | {
            field: value if math.isfinite(value) else None for field, value in numbers.items()
        }
        if _identity(line) in self._known:
            return
        self._known.add(_identity(line))
        self._file.write(json.dumps(line).encode() + b"\n")
        if self._events is None:
            # Not `SummaryWriter`: its thread would meet a full disk where nobody hears of it.
            from tensorboardX.event_file_writer import EventsWriter

            suffix = f".{time.time_ns()}"  # else a quick restart would write over the file
            self._events = EventsWriter(str(self._workdir / "events"), suffix)
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore

        values = [Summary.Value(tag=f"{name}/{f}", simple_value=v) for f, v in numbers.items()]
        self._events.write_event(
            Event(wall_time=time.time(), step=int(step), summary=Summary(value=values))
        )

    def flush(self) -> None:
        """Writes what was noted; the events first, as what is in the lines is not noted again."""
        if self._events is not None:
            self._events.flush()
        self._file.flush()

    def close(self) -> None:
        """Closes both files."""
        try:
            if self._events is not None:
                self._events.close()
        finally:
            self._file.close()


def _identity(line: Mapping) -> tuple:
    return (line["step"], line["name"], *sorted(set(line) - {"step", "name"}))
