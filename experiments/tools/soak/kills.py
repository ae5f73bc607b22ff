"""Kills a run at random moments, and compares what it leaves with what an unbroken run leaves."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.tools.soak import run as soaked
from experiments.tools.soak.forks import Fork
from jattn.training import cli, supervisor

CONFIG = Path(__file__).parent / "config.py"
ROOT = Path(__file__).parents[3]
COMPARED = ("claims.json", "metrics.jsonl", "arrays", "figures")
LONGEST = 300.0  # seconds that a process may go on without its peer, or to its own end
MOMENTS = ("any", "steps", "checkpoint", "arrays", "claims")
FRESH = 10  # one start of so many is one of Python, as a user's is; the others are forks
PEER_TIMEOUT = 60


class Report(NamedTuple):
    """What kills did to runs.

    Attributes:
        kills: how many there were.
        moments: how many at each sort of moment.
        runs: how many runs were brought to their end.
        equal: how many kills were in runs that left the same bits as an unbroken one.
        fresh: how many times Python was started for them; the other times were forks.
        problems: what went wrong, a line each.
    """

    kills: int
    moments: dict[str, int]
    runs: int
    equal: int
    fresh: int
    problems: list[str]


class Running(NamedTuple):
    """A process, and the file that its standard error goes to."""

    process: Fork | subprocess.Popen
    errors: Path


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
    report = Report(0, dict.fromkeys(MOMENTS, 0), 0, 0, 0, [])
    # The first compiles what later runs find in the cache, the second says how long those take.
    statuses, seconds = wait(start(folder / "whole", processes), report.problems), 0.0
    expected = left_by(folder / "whole")
    if not any(statuses):
        began = time.monotonic()
        statuses = wait(start(folder / "again", processes), report.problems)
        seconds = time.monotonic() - began
    if any(statuses) or not expected or left_by(folder / "again") != expected:
        report.problems.append(f"unbroken runs ended with status {statuses}, or with other bits")
        return report
    shown = 0
    while report.kills < kills:
        here = folder / f"run{report.runs}"
        left = min(dice.randint(1, 6), kills - report.kills)
        struck = 0
        while True:
            fresh = dice.randrange(FRESH) == 0
            running = start(here, processes, fresh)
            report = report._replace(fresh=report.fresh + fresh * processes)
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


def start(folder: Path, processes: int, fresh: bool = False, *flags: str) -> list[Running]:
    """Starts the run, or goes on with it.

    Args:
        folder: its workdir.
        processes: how many, see `soak`.
        fresh: start Python, rather than fork this process.
        *flags: of the run.
    """
    arguments = [f"--config={CONFIG}", f"--workdir={folder}", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop(supervisor.FILE, None)
    if processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        arguments += ["--distributed", f"--coordinator_address=localhost:{port}"]
        arguments += [f"--num_processes={processes}", f"--peer_timeout={PEER_TIMEOUT}"]
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    running = []
    for index in range(processes):
        own = [*arguments, f"--process_id={index}"] if processes > 1 else arguments
        path = folder.parent / f"{folder.name}.{index}.stderr"
        with path.open("w") as errors:
            if fresh:
                process = subprocess.Popen(
                    [sys.executable, "-m", soaked.__name__, *own],
                    env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors,
                )  # fmt: skip
            else:
                work = work_supervised if processes > 1 else work_alone
                process = Fork(lambda own=own, work=work: work(own), environment, errors)
        running.append(Running(process, path))
    return running


def work_alone(arguments: Sequence[str]) -> None:
    """What a process of a run does."""
    cli.main(soaked.run_experiment, name="soak", argv=["soak", *arguments])


def work_supervised(arguments: Sequence[str]) -> None:
    """What a process does whose run has others: it watches a child that works, as `cli` has it."""

    def fork(arguments, env, stderr, **_):
        return Fork(lambda: work_alone(arguments), env, stderr)

    sys.exit(supervisor.supervise(arguments, "soak", PEER_TIMEOUT, fork))


def strike(
    folder: Path, running: list[Running], dice: random.Random, seconds: float, problems: list[str]
) -> str | None:
    """Kills at a random moment: all processes, or one, whose peer must then end by itself.

    Returns:
        The sort of moment, or None if the run ended before.
    """
    moment = dice.choice(MOMENTS)
    share, short = dice.random(), dice.choice((0, 0, 0.01, 0.1, 0.5))
    before = _traces(folder, moment)
    while _traces(folder, moment) <= before:
        if all(one.process.poll() is not None for one in running):
            return None
        time.sleep(0.005)
    time.sleep(share * seconds * _left(folder) if moment == "any" else short)
    victims = running if len(running) == 1 or dice.random() < 0.5 else [dice.choice(running)]
    if any(one.process.poll() is not None for one in running):
        return None
    for one in victims:
        one.process.kill()
    for status in wait(running, problems):
        # A peer ends by itself: it was done, or says that it lost the other.
        if status not in (0, -9, supervisor.LOST):
            problems.append(f"{folder}: a process whose peer was killed ended with {status}")
    return moment


def wait(running: list[Running], problems: list[str]) -> list[int]:
    """Waits for processes to end; none may hang, or print a traceback."""
    statuses = []
    for process, errors in running:
        end = time.monotonic() + LONGEST
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
            problems.append(f"a process hung for {LONGEST:.0f} s")
        said = errors.read_text()
        if "Traceback" in said:
            problems.append(f"a process printed a traceback: {said.strip().splitlines()[-1]}")
        statuses.append(process.wait())
    return statuses


def left_by(folder: Path) -> dict[str, bytes]:
    """The contents of what a run leaves, by path."""
    found: dict[str, bytes] = {}
    for name in COMPARED:
        path = folder / name
        files = [path] if path.is_file() else sorted(path.glob("*"))
        found |= {str(file.relative_to(folder)): file.read_bytes() for file in files}
    return found if "claims.json" in found else {}


def _left(folder: Path) -> float:
    """The share of an unbroken run that this one has to go yet, the end behind its steps added."""
    try:
        done = (folder / "metrics.jsonl").stat().st_size
        whole = (folder.parent / "whole" / "metrics.jsonl").stat().st_size
    except OSError:
        return 1.0
    return max(1 - done / whole, 0.2)


def _traces(folder: Path, moment: str) -> int:
    """A number that grows when a moment of this sort comes; "any": when the run begins to work."""
    try:
        if moment == "any":
            return (folder / "provenance.json").stat().st_mtime_ns
        if moment == "steps":
            return (folder / "metrics.jsonl").stat().st_size
        if moment == "checkpoint":
            return sum(1 for path in (folder / "checkpoints" / "line").glob("*tmp*"))
        if moment == "arrays":
            return sum(1 for _ in (folder / "arrays").glob("*"))
        return sum(1 for _ in (folder / "figures").glob("*"))
    except OSError:
        return 0
