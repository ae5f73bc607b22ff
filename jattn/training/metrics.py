"""Numbers over time: one JSON line each in `metrics.jsonl`, and TensorBoard events."""

import json
import math
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jattn.training import stores
from jattn.training.errors import UsageError
from jattn.training.files import Growing, Uploads, write_atomically
from jattn.training.stores import Folder


class Metrics:
    """Appends to `metrics.jsonl` and to TensorBoard events in the same folder.

    A run that resumes works out again what it noted after its last checkpoint. A line that is
    there already is therefore not written twice, so the file is the same as if the run had never
    stopped; for that, lines hold no clock. `metrics.check` has the checksum of the lines up to the
    last checkpoint; what was noted behind it is noted again.

    Args:
        workdir: the folder, which exists.
    """

    def __init__(self, workdir: Folder):
        self._workdir, self._events, self._timings = workdir, None, None
        self._path = workdir / "metrics.jsonl"
        text = self._path.read_bytes() if self._path.exists() else b""
        whole = _checked(self._path, text)
        self._known = _known(self._path, whole)
        self._length, self._sum = len(whole), zlib.crc32(whole)
        self._file = Growing(self._path, whole)

    def log(self, step: int, name: str, scalars: Mapping[str, ArrayLike]) -> None:
        """Notes scalars of `name` at `step`; numbers that are not finite become null."""
        numbers = {field: float(np.asarray(value)) for field, value in scalars.items()}
        line = {"step": int(step), "name": name} | {
            field: value if math.isfinite(value) else None for field, value in numbers.items()
        }
        if _identity(line) in self._known:
            return
        self._known.add(_identity(line))
        text = json.dumps(line).encode() + b"\n"
        self._length, self._sum = self._length + len(text), zlib.crc32(text, self._sum)
        self._file.append(text)
        self._show(step, name, numbers)

    def log_speed(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        """Notes how fast something was: in `timings.jsonl`, as it is never the same again."""
        if self._timings is None:
            path = self._workdir / "timings.jsonl"
            self._timings = Growing(path, path.read_bytes() if path.exists() else b"")
        line = {"time": round(time.time(), 1), "step": int(step), "name": name} | dict(numbers)
        self._timings.append(json.dumps(line).encode() + b"\n")
        self._show(step, f"{name}/speed", numbers)

    def _show(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        if self._events is None:
            self._events = _Events(self._workdir)
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore

        values = [Summary.Value(tag=f"{name}/{f}", simple_value=v) for f, v in numbers.items()]
        self._events.write(
            Event(wall_time=time.time(), step=int(step), summary=Summary(value=values))
        )

    def flush(self, now: bool = False) -> None:
        """Writes what was noted; the events first, as what is in the lines is not noted again.

        Args:
            now: also to a store, to which little by little is not worth it; and what there is so
                far stays, where what comes later would be noted again by a run that resumes.
        """
        for file in (self._events, self._timings, self._file):
            if file is not None:
                file.flush(now)
        if now:
            self._seal()

    def close(self) -> None:
        """Closes the files."""
        try:
            for file in (self._events, self._timings):
                if file is not None:
                    file.close()
        finally:
            self._file.close()
        if self._length:
            self._seal()

    def _seal(self) -> None:
        """Keeps the length and checksum of what is in the lines."""
        seal = {"bytes": self._length, "crc32": self._sum}
        write_atomically(_seal_of(self._path), json.dumps(seal).encode())


def _seal_of(path: Folder) -> Folder:
    return path.parent / "metrics.check"


def _checked(path: Folder, text: bytes) -> bytes:
    """What of the lines is whole: as far as their seal goes, or a kill has left whole lines."""
    try:
        seal = json.loads(_seal_of(path).read_text())
        length, checksum = int(seal["bytes"]), int(seal["crc32"])
    except FileNotFoundError:
        return text[: text.rfind(b"\n") + 1]
    except (ValueError, KeyError, TypeError):
        length, checksum = -1, 0
    if length < 0 or len(text) < length or zlib.crc32(text[:length]) != checksum:
        raise UsageError(
            f"workdir: {path} is damaged: not what {_seal_of(path).name} says of it; move both "
            "away to go on without those lines, which neither results nor checkpoints depend on"
        )
    return text[:length]


class _Events:
    """The file of TensorBoard events; for a store a temporary one, and its copy there."""

    def __init__(self, workdir: Folder):
        # Not `SummaryWriter`: its thread would meet a full disk where nobody hears of it.
        from tensorboardX.event_file_writer import EventsWriter

        remote = stores.scheme_of(workdir) is not None
        self._temporary = tempfile.TemporaryDirectory() if remote else None
        here = Path(self._temporary.name if self._temporary else workdir)
        suffix = f".{time.time_ns()}"  # else a quick restart would write over the file
        self._writer, self._copy = EventsWriter(str(here / "events"), suffix), None
        if remote:
            (file,) = here.iterdir()
            self._copy = Uploads(workdir / file.name, file.read_bytes)

    def write(self, event: Any) -> None:
        self._writer.write_event(event)
        if self._copy is not None:
            self._copy.due = True

    def flush(self, now: bool) -> None:
        self._writer.flush()
        if self._copy is not None:
            self._copy.flush(now)

    def close(self) -> None:
        self._writer.close()
        if self._copy is not None:
            self._copy.flush(now=True)
        if self._temporary is not None:
            self._temporary.cleanup()


def _known(path: Folder, text: bytes) -> set[tuple]:
    known = set()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            known.add(_identity(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"workdir: line {number} of {path} is damaged; delete that line, or move the file "
                "away: results and checkpoints do not depend on it"
            ) from None
    return known


def _identity(line: Mapping) -> tuple:
    return (line["step"], line["name"], *sorted(set(line) - {"step", "name"}))
