"""One process of many, watched by its parent: whatever happens to the others, it ends and says so.

A process that works with others can end in ways that no Python of its own sees: jax's runtime
aborts it when the first process is gone, and a collective whose peer hangs waits for ever. So the
command starts itself again as a child, which works, and waits: for its end, or for a sign of life.
"""

import contextlib
import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import IO, Any

NEVER_CAME, LOST = 2, 5  # Exit statuses: other processes never came, or were lost.
GRACE = 30.0  # seconds that a child has on top, to start and to say itself what is wrong
JOINED = b"+"  # what a child writes when it has met the other processes
FILE = "JATTN_SIGNS_OF_LIFE"  # Environment variable: the child's end of a pipe.
KILLED_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
# Words of errors that another process causes; and what the runtime logs about one, all of which our
# last line says.
OF_PEERS = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "heartbeat", "barrier", "peer")
LOG = re.compile(
    r"^([EWFI]\d{4} \d\d:\d\d:\d\d\.\d+|WARNING: All log messages before absl::|"
    r"terminate called|  what\(\): .*gloo|\d+$|The tasks have crashed)"
)


def is_child() -> bool:
    """Whether this process is the one that works."""
    return FILE in os.environ


def supervise(
    command: Sequence[str], name: str, timeout: float, start: Callable[..., Any] = subprocess.Popen
) -> int:
    """Runs a command, passing signals on, until it ends or gives no sign of life for too long.

    Args:
        command: what to run; it calls `join_parent`, and `sign_of_life` now and then.
        name: for messages.
        timeout: seconds between signs of life.
        start: starts it, with some of the arguments of `subprocess.Popen`.

    Returns:
        Its exit status; `LOST` if it was aborted, or gave no sign of life and was killed;
        `NEVER_CAME` if it was aborted before it had joined others.
    """
    read, write = os.pipe()
    environment = os.environ | {FILE: str(write)}
    child = start(command, env=environment, pass_fds=(write,), stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert child.stderr is not None
    errors = threading.Thread(target=_pass_on, args=(child.stderr,), daemon=True)
    errors.start()
    with _signals_to(child):
        in_time, joined = _wait(child, read, timeout)
        if not in_time:
            child.kill()
        status = child.wait()
    os.close(read)
    errors.join(timeout=5)
    if status == -signal.SIGABRT and not joined:
        text = f"the other processes did not come within {timeout:.0f} s (--peer_timeout)"
        how = "start as many as --num_processes says, all with the same --coordinator_address"
        print(f"{name}: {text}; {how}", file=sys.stderr, flush=True)
        return NEVER_CAME
    if not in_time:
        why = f"no progress for {timeout:.0f} s: another process hangs, or is gone"
    elif status == -signal.SIGABRT:
        why = "another process is gone"
    else:
        return status if status >= 0 else 128 - status
    print(lost(name, why), file=sys.stderr, flush=True)
    return LOST


def lost(name: str, why: str) -> str:
    """What a process says that cannot go on without another."""
    text = " ".join(why.split())
    return f"{name}: {text}; what was saved is intact. Start all processes again to go on from it"


def join_parent() -> None:
    """Makes this process end with its parent; to be called by the child as it begins."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(KILLED_WITH_PARENT, signal.SIGKILL)
    sign_of_life()


def sign_of_life(sign: bytes = b".") -> None:
    """Tells a parent, if there is one, that the main thread gets on; by `JOINED`, how far it is."""
    number = os.environ.get(FILE)
    if number is not None:
        with contextlib.suppress(OSError):  # a parent that is gone
            os.write(int(number), sign)


def _wait(child: subprocess.Popen, signs: int, timeout: float) -> tuple[bool, bool]:
    """Waits for the end; returns whether signs of life came in time, and whether it had joined."""
    last, joined = time.monotonic(), False
    while child.poll() is None:
        ready, _, _ = select.select([signs], [], [], 0.2)
        if ready and (sign := os.read(signs, 4096)):
            last, joined = time.monotonic(), joined or JOINED in sign
        elif ready:  # closed: the child is ending
            time.sleep(0.05)
        if time.monotonic() - last > timeout + GRACE:
            return False, joined
    return True, joined


def _pass_on(errors: IO[str]) -> None:
    """Copies standard error, without what the runtime logs about other processes."""
    fatal = False
    for line in errors:
        fatal = fatal or bool(re.match(r"^F\d{4} ", line))
        if not fatal and not LOG.match(line):
            sys.stderr.write(line)
            sys.stderr.flush()


@contextlib.contextmanager
def _signals_to(child: subprocess.Popen) -> Iterator[None]:
    """While it lasts, SIGTERM and SIGINT go to the child."""

    def forward(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    kinds = (signal.SIGTERM, signal.SIGINT)
    before: dict[signal.Signals, Callable | int | None] = {
        kind: signal.signal(kind, forward) for kind in kinds
    }
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
