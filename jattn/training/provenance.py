"""Where a run comes from: the command that ran, when, which code and versions, on what."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import jax

from jattn.training.files import write_atomically
from jattn.training.stores import Folder

PACKAGES = ("jattn", "jax", "jaxlib", "flax", "optax", "numpy")


class Provenance:
    """Keeps `provenance.json` of a workdir: one entry for each time that worked on the run.

    A run that has its claims is finished: to look at it again adds nothing.

    Args:
        workdir: the folder, which exists.
        command: the command line, to be pasted into a shell.
        spread: how fits are spread over devices.
    """

    def __init__(self, workdir: Folder, command: str | None, spread: str):
        self._path = workdir / "provenance.json"
        self._began = time.monotonic()
        self.sessions = read(workdir)
        self._open = not (workdir / "claims.json").exists()
        if self._open:
            entry = {"command": command, "spread": spread, **_described(), "seconds": None}
            self.sessions.append(entry)
            self._write()

    def close(self, goodput: dict[str, float], flops: float = 0.0) -> None:
        """Notes how long this time has worked, what of, and the operations of its training."""
        if self._open:
            shares = {kind: round(share, 3) for kind, share in goodput.items()}
            self.sessions[-1]["goodput"] = shares
            self.sessions[-1]["flops"] = flops
            self.sessions[-1]["seconds"] = round(time.monotonic() - self._began, 1)
            self._write()
        self._open = False

    def withdraw(self) -> None:
        """Forgets this time, which was refused."""
        if self._open:
            self.sessions.pop()
            if self.sessions:
                self._write()
            else:
                self._path.unlink(missing_ok=True)
        self._open = False

    def _write(self) -> None:
        write_atomically(self._path, (json.dumps(self.sessions, indent=2) + "\n").encode())


def read(workdir: Folder) -> list[dict[str, Any]]:
    """The entries of a workdir; none where there are none that can be read."""
    try:
        sessions = json.loads((workdir / "provenance.json").read_text())
    except (OSError, ValueError):
        return []
    return [entry for entry in sessions if isinstance(entry, dict)]


def _described() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": versions,
        "device": _device(),
        "processes": jax.process_count(),
    }


def _commit() -> str | None:
    """The commit of the checkout that this file is in, with a + where it was changed since."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _device() -> str:
    kind = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu":
        kind = f"cpu ({_processor()}, {os.cpu_count()} cores)"
    return f"{jax.device_count()} x {kind}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
