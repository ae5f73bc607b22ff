"""Writing files whole, and files that grow; in local folders and in object stores."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jattn.training import stores
from jattn.training.stores import Folder

UNFINISHED = ".unfinished"  # how names of files end that are being written
SECONDS_BETWEEN_UPLOADS = 15.0


def write_atomically(path: Folder, content: bytes | Callable[[Any], object]) -> None:
    """Writes a file so that at any moment the old or the new one is there, whole.

    Args:
        path: the file; a local one's folder is made if missing.
        content: the bytes, or a function that writes them to an open file.
    """
    if stores.scheme_of(path) is not None:
        stores.write(path, content)
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Removes what a process that was killed was writing, in a local folder and those in it."""
    for path in (*folder.glob(f".*{UNFINISHED}"), *folder.glob(f"*/.*{UNFINISHED}")):
        path.unlink(missing_ok=True)


class Growing:
    """A file that grows at its end.

    Objects in a store do not grow: there, what was appended is kept, and the whole is written again
    when it is flushed, but not all the time.

    Args:
        path: the file.
        whole: what of it stays; anything behind is cut off.
    """

    def __init__(self, path: Folder, whole: bytes):
        self._path, self._file, self._bytes = path, None, bytearray()
        if stores.scheme_of(path) is None:
            self._file = Path(path).open("ab")  # noqa: SIM115  closed by `close`
            self._file.truncate(len(whole))
        else:
            self._bytes += whole
            self._uploads = Uploads(path, lambda: bytes(self._bytes))

    def append(self, content: bytes) -> None:
        """Adds at the end."""
        if self._file is not None:
            self._file.write(content)
        else:
            self._bytes += content
            self._uploads.due = True

    def flush(self, now: bool = False) -> None:
        """Writes what was appended, if it is time; `now`, or to a local file: in any case."""
        if self._file is not None:
            self._file.flush()
        else:
            self._uploads.flush(now)

    def close(self) -> None:
        """Writes what was appended, and closes."""
        if self._file is not None:
            self._file.close()
        else:
            self._uploads.flush(now=True)


class Uploads:
    """Writes one object again and again, as what it holds changes.

    Args:
        path: the object.
        content: gives its bytes.

    Attributes:
        due: whether there is something new.
    """

    def __init__(self, path: Folder, content: Callable[[], bytes]):
        self._path, self._content = path, content
        self._last, self.due = -float("inf"), True

    def flush(self, now: bool) -> None:
        """Writes the object if there is something new and it is time; `now`: in any case."""
        if self.due and (now or time.monotonic() - self._last >= SECONDS_BETWEEN_UPLOADS):
            stores.write(self._path, self._content())
            self._last, self.due = time.monotonic(), False
