"""Processes without the start of Python: forks of this one, which has imported what a run needs.

Only as long as no backend of jax has been used here, for its threads do not outlive a fork; jax
warns of that.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import IO, NoReturn


class Fork:
    """A fork of this process, with what the soak and `supervise` use of `subprocess.Popen`.

    Args:
        work: what it does; then it ends as Python does, with the status of a `SystemExit`.
        env: its environment.
        stderr: where its standard error goes: a file, or `subprocess.PIPE`.

    Attributes:
        pid: its number.
        returncode: its exit status, negative for a signal; None until `poll` or `wait` has seen it.
        stderr: what it writes there, if that is a pipe.
    """

    def __init__(self, work: Callable[[], object], env: Mapping[str, str], stderr: IO | int):
        ours, theirs = os.pipe() if isinstance(stderr, int) else (None, stderr.fileno())
        sys.stdout.flush()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            _become(work, env, theirs)
        self.stderr: IO[str] | None = None
        if ours is not None:
            os.close(theirs)
            self.stderr = os.fdopen(ours)

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._waited(os.WNOHANG)

    def wait(self) -> int:
        """Waits for its end; returns the exit status."""
        status = self._waited(0)
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it."""
        self.send_signal(signal.SIGKILL)

    def _waited(self, flags: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, flags)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _become(work: Callable[[], object], env: Mapping[str, str], stderr: int) -> NoReturn:
    """Is the child: never returns into what the parent was doing."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(stderr, 2)
        os.close(stderr)
        os.environ.clear()
        os.environ.update(env)
        work()
        status = 0
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(BaseException):  # as Python ends
        threading._shutdown()  # type: ignore
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
