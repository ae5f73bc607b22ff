"""Kills a run at random moments, and compares what it leaves with what an unbroken run leaves."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jattn.training import supervisor

CONFIG = Path(__file__).parent / "config.py"
ROOT = Path(__file__).parents[3]
COMPARED = ("claims.json", "metrics.jsonl", "arrays", "figures")
LONGEST = 300.0  # seconds that a process may go on without its peer, or to its own end
MOMENTS = ("any", "steps", "checkpoint", "arrays", "claims")


class Report(NamedTuple):
    """What kills did to runs.

    Attributes:
        kills: how many there were.
        moments: how many at each sort of moment.
        runs: how many runs were brought to their end.
        equal: how many kills were in runs that left the same bits as an unbroken one.
        problems: what went wrong, a line each.
    """

    kills: int
    moments: dict[str, int]
    runs: int
    equal: int
    problems: list[str]


def soak(
    folder: Path, kills: int, processes: int, seed: int, tell: Callable[[str], None]
) -> Report:
    """Kills runs, until there were enough kills, and brings each run to its end.

    Args:
        folder: where they are, which exists.
        kills: how many.
        processes: 1, with one device; or 2, with two devices each.
        seed: of the moments.
        tell: called with a line now and then.
    """
    dice = random.Random(seed)
    began = time.monotonic()
    statuses = [process.wait() for process in start(folder / "whole", processes)]
    seconds = time.monotonic() - began
    expected = left_by(folder / "whole")
    if any(statuses) or not expected:
        return Report(0, {}, 0, 0, [f"the unbroken run ended with status {statuses}"])
    report, shown = Report(0, dict.fromkeys(MOMENTS, 0), 0, 0, []), 0
    while report.kills < kills:
        here = folder / f"run{report.runs}"
        left = min(dice.randint(1, 6), kills - report.kills)
        struck = 0
        while True:
            running = start(here, processes)
            if struck == left:
                break
            moment = strike(here, running, dice, seconds, report.problems)
            if moment is None:  # it ended before
                break
            struck += 1
            report.moments[moment] += 1
            report = report._replace(kills=report.kills + 1)
        statuses = wait(running, report.problems)
        same = left_by(here) == expected and not any(statuses)
        if not same:
            report.problems.append(f"{here} differs from {folder / 'whole'} (status {statuses})")
        report = report._replace(runs=report.runs + 1, equal=report.equal + same * struck)
        for problem in report.problems[shown:]:
            tell(f"problem: {problem}")
        shown = len(report.problems)
        told = f"{report.kills} of {kills} kills, {report.equal} without a trace"
        tell(f"{processes} process(es): {told}")
    return report


def start(folder: Path, processes: int) -> list[subprocess.Popen]:
    """Starts the run, or goes on with it."""
    command = [sys.executable, "-m", "experiments.tools.soak.run", f"--config={CONFIG}"]
    command.append(f"--workdir={folder}")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment.pop(supervisor.FILE, None)
    if processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        command += ["--distributed", f"--coordinator_address=localhost:{port}"]
        command += [f"--num_processes={processes}", "--peer_timeout=60"]
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    return [
        subprocess.Popen(
            [*command, f"--process_id={index}"] if processes > 1 else command,
            env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for index in range(processes)
    ]  # fmt: skip


def strike(
    folder: Path, running: list[subprocess.Popen], dice: random.Random, seconds: float,
    problems: list[str],
) -> str | None:  # fmt: skip
    """Kills at a random moment: all processes, or one, whose peer must then end by itself.

    Returns:
        The sort of moment, or None if the run ended before.
    """
    moment = dice.choice(MOMENTS)
    after = dice.uniform(0.1, seconds) if moment == "any" else dice.choice((0, 0, 0.01, 0.1, 0.5))
    before = _traces(folder, moment)
    while moment != "any" and _traces(folder, moment) <= before:
        if all(process.poll() is not None for process in running):
            return None
        time.sleep(0.001)
    time.sleep(after)
    victims = running if len(running) == 1 or dice.random() < 0.5 else [dice.choice(running)]
    if any(process.poll() is not None for process in running):
        return None
    for process in victims:
        process.kill()
    for status in wait(running, problems):
        # A peer ends by itself: it was done, or says that it lost the other.
        if status not in (0, -9, supervisor.LOST):
            problems.append(f"{folder}: a process whose peer was killed ended with {status}")
    return moment


def wait(running: list[subprocess.Popen], problems: list[str]) -> list[int]:
    """Waits for processes to end; none may hang, or print a traceback."""
    statuses = []
    for process in running:
        try:
            _, errors = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
            problems.append(f"a process hung for {LONGEST:.0f} s")
        if "Traceback" in errors:
            problems.append(f"a process printed a traceback: {errors.strip().splitlines()[-1]}")
        statuses.append(process.returncode)
    return statuses


def left_by(folder: Path) -> dict[str, bytes]:
    """The contents of what a run leaves, by path."""
    found: dict[str, bytes] = {}
    for name in COMPARED:
        path = folder / name
        files = [path] if path.is_file() else sorted(path.glob("*"))
        found |= {str(file.relative_to(folder)): file.read_bytes() for file in files}
    return found if "claims.json" in found else {}


def _traces(folder: Path, moment: str) -> int:
    """A number that grows when a moment of this sort comes."""
    try:
        if moment == "steps":
            return (folder / "metrics.jsonl").stat().st_size
        if moment == "checkpoint":
            return sum(1 for path in (folder / "checkpoints" / "line").glob("*tmp*"))
        if moment == "arrays":
            return sum(1 for _ in (folder / "arrays").glob("*"))
        return sum(1 for _ in (folder / "figures").glob("*"))
    except OSError:
        return 0
