"""One run at a time in a store: a lease that its holder renews, and that runs out without it."""

import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from jattn.training import stores
from jattn.training.errors import UsageError
from jattn.training.stores import Folder

SECONDS_BETWEEN_RENEWALS = 10.0
SECONDS_OF_A_LEASE = 40.0  # not renewed for so long: its holder is gone


class Lease:
    """Holds a remote folder until `release`, or until its holder has not renewed it for a while.

    The store makes sure that of several that create the object at once one succeeds. One that
    finds it there watches it: renewed, it is in use; not renewed for `SECONDS_OF_A_LEASE`, it is
    taken. No clocks are compared. A holder that was stopped for longer than that, and taken for
    gone, finds out at its next renewal, and `check` says so.

    Args:
        path: the object; its folder's name is the folder that is held.
        note: told, in a line, where it takes long to know.

    Raises:
        UsageError: another process holds it.
    """

    def __init__(self, path: Folder, note=print):
        self._path = path
        self._entry = {**_this_process(), "token": uuid.uuid4().hex, "renewals": 0}
        self._lost_to: str | None = None
        self._take(note)
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()

    def _take(self, note) -> None:
        seen, since, told = None, time.monotonic(), False
        while not stores.create(self._path, self._content()):
            held = self._read()
            if held is None:  # given free just now
                continue
            if seen is not None and _who(held) == _who(seen) and held != seen:
                raise self._in_use(held)
            if seen is None or _who(held) != _who(seen):
                seen, since = held, time.monotonic()
            if _is_gone(held) or time.monotonic() - since > SECONDS_OF_A_LEASE:
                if self._read() == held:
                    self._path.unlink(missing_ok=True)
                continue
            if not told:
                note(
                    f"{self._path.parent}: waiting up to {SECONDS_OF_A_LEASE:g} s to see whether "
                    f"{held.get('holder')} still works in it"
                )
                told = True
            time.sleep(min(1.0, SECONDS_BETWEEN_RENEWALS / 4))
        held = self._read()
        if held is not None and _who(held) != _who(self._entry):  # two found it free at once
            raise self._in_use(held)

    def _in_use(self, held: dict[str, Any]) -> UsageError:
        return UsageError(
            f"workdir: {self._path.parent} is in use by {held.get('holder')}; wait for it to end, "
            "or use another workdir"
        )

    def _content(self) -> bytes:
        return json.dumps(self._entry).encode() + b"\n"

    def _read(self) -> dict[str, Any] | None:
        try:
            entry = json.loads(stores.read(self._path))
        except FileNotFoundError:
            return None
        except ValueError:
            entry = None
        return entry if isinstance(entry, dict) else {"holder": "another process"}

    def _renew(self) -> None:
        while not self._released.wait(SECONDS_BETWEEN_RENEWALS):
            try:
                held = self._read()
                if held is not None and _who(held) != _who(self._entry):
                    self._lost_to = str(held.get("holder"))
                    return
                self._entry["renewals"] += 1
                stores.write(self._path, self._content())
            except Exception as error:
                if not stores.is_failure(error):
                    raise
                # The store does not answer: the run meets that itself; here there is a next time.

    def check(self) -> None:
        """Tells if another process took the folder, for this one did not renew its lease in time.

        Raises:
            UsageError: it did.
        """
        if self._lost_to is not None:
            raise UsageError(
                f"workdir: {self._path.parent} was taken over by {self._lost_to} while this "
                "process could not renew its lease; this run stops"
            )

    def release(self) -> None:
        """Gives the folder free."""
        self._released.set()
        self._renewing.join()
        if self._lost_to is None:
            self._path.unlink(missing_ok=True)


def _this_process() -> dict[str, Any]:
    return {
        "holder": f"process {os.getpid()} on {socket.gethostname()}",
        "machine": _machine(),
        "process": os.getpid(),
    }


def _machine() -> str:
    """What tells machines and containers apart where their names are alike; "" if not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _who(entry: dict[str, Any]) -> Any:
    return entry.get("token")


def _is_gone(entry: dict[str, Any]) -> bool:
    """Whether it is known that its holder is no more: it ran here, and does not."""
    number = entry.get("process")
    if not _machine() or entry.get("machine") != _machine() or not isinstance(number, int):
        return False
    return number != os.getpid() and not Path(f"/proc/{number}").exists()
