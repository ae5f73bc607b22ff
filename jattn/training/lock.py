"""One run at a time in a workdir: a lock that ends with the process, however that ends.

In an object store it is a lease, see `lease`.
"""

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from jattn.training import stores
from jattn.training.errors import UsageError
from jattn.training.lease import Lease
from jattn.training.stores import Folder

NAME = ".lock"


def hold(folder: Folder) -> "Lock | Lease":
    """Holds a folder, local or in a store, so that no other run works in it.

    Raises:
        UsageError: another process holds it.
    """
    if stores.scheme_of(folder) is None:
        return Lock(Path(folder))
    return Lease(folder / NAME)


class Lock:
    """Holds a folder until `release`, or until the process is gone.

    The operating system keeps the lock, so what a killed process leaves behind is an unlocked file.
    On file systems without locks nothing is held.

    Args:
        folder: which exists.

    Raises:
        UsageError: another process, or another open run of this one, holds it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lock = Lock(Path(folder))
        ...     try:
        ...         Lock(Path(folder))
        ...     except UsageError as error:
        ...         print("is in use by process" in str(error))
        ...     lock.release()
        True
    """

    def __init__(self, folder: Path):
        self._path = folder / NAME
        self._file: IO[str] | None = None
        while self._file is None:
            file = self._path.open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise UsageError(
                    f"workdir: {folder} is in use by {holder}; wait for it to end, or use another "
                    "workdir"
                ) from None
            except OSError:  # no locks on this file system
                pass
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    self._file = file
            if self._file is None:  # its holder has just given it back, and removed it
                file.close()
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def check(self) -> None:
        """Does nothing: what the operating system locks is not lost. See `Lease.check`."""

    def release(self) -> None:
        """Gives the folder free."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
