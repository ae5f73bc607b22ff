"""Damages files of a run, one at a time: the run must notice, or not be touched by it."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments.tools.soak.kills import left_by, start, wait
from jattn.training import cli

FRESH = 25  # one damage of so many is met by a Python just started, the others by forks
NOT_DAMAGED = ("claims.json", "figures", "provenance.json", "events", ".lock", "timings.jsonl")


class Report(NamedTuple):
    """What damages did.

    Attributes:
        damages: how many there were.
        recovered: after how many the run ended with the same bits as before.
        refused: after how many one clear line said what is damaged, and nothing was changed.
        fresh: for how many Python was started; the others were met by forks.
        problems: what went wrong, a line each.
    """

    damages: int
    recovered: int
    refused: int
    fresh: int
    problems: list[str]


def damage(folder: Path, count: int, seed: int, tell: Callable[[str], None]) -> Report:
    """Damages copies of a finished run, and of one that has some way to go, and goes on with them.

    Args:
        folder: where they are, which exists.
        count: how many damages.
        seed: of the damages.
        tell: called with a line now and then.
    """
    dice = random.Random(seed)
    whole, half, here = folder / "finished", folder / "half", folder / "damaged"
    status, said = go_on(whole)
    expected = left_by(whole)
    if status:
        return Report(0, 0, 0, 0, [f"the run to be damaged ended with {status}: {said}"])
    shutil.copytree(whole, half)
    forget_the_end(half)
    report = Report(0, 0, 0, 0, [])
    for index in range(count):
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(dice.choice((whole, half)), here)
        done = damage_one_file(here, dice)
        before = contents(here)
        status, said = go_on(here, fresh=index % FRESH == 0)
        lines = said.strip().splitlines()
        if status == cli.HOLDS and left_by(here) == expected:
            report = report._replace(recovered=report.recovered + 1)
        elif status == cli.BAD_INPUT and len(lines) == 1 and contents(here) == before:
            report = report._replace(refused=report.refused + 1)
        else:
            report.problems.append(f"{done}: status {status}, {lines[-1:] or 'other results'}")
            tell(f"problem: {report.problems[-1]}")
        report = report._replace(damages=index + 1, fresh=index // FRESH + 1)
        if (index + 1) % 50 == 0:
            tell(f"{index + 1} of {count} damages, {len(report.problems)} problems")
    return report


def go_on(folder: Path, fresh: bool = False) -> tuple[int, str]:
    """Starts the run again; returns its exit status, and what it said of errors."""
    running = start(folder, 1, fresh, "--config.steps=300")
    hung: list[str] = []
    (status,) = wait(running, hung)
    return status, running[0].errors.read_text() + "\n".join(hung)


def forget_the_end(folder: Path) -> None:
    """Leaves what a run has written by two thirds of its steps."""
    for name in ("arrays", "figures"):
        shutil.rmtree(folder / name)
    (folder / "claims.json").unlink()
    steps = sorted(
        (path for path in (folder / "checkpoints" / "line").iterdir() if path.name.isdigit()),
        key=lambda path: int(path.name),
    )
    shutil.rmtree(steps[-1])


def damage_one_file(folder: Path, dice: random.Random) -> str:
    """Damages one file as disks and hands do; returns what it did."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and is_ours(path, folder)]
    kinds: dict[str, list[Path]] = {}
    for path in files:  # each kind of file as often as any other
        kinds.setdefault(path.relative_to(folder).parts[0], []).append(path)
    path = dice.choice(kinds[dice.choice(sorted(kinds))])
    data = bytearray(path.read_bytes())
    how = dice.choice(("bit", "byte", "cut", "zeros", "more", "gone", "empty", "other", "twice"))
    at = dice.randrange(len(data)) if data else 0
    if how == "gone":
        path.unlink()
        return f"{path.relative_to(folder)} gone"
    if how == "bit" and data:
        data[at] ^= 1 << dice.randrange(8)
    elif how == "byte" and data:
        data[at] = (data[at] + dice.randrange(1, 256)) % 256
    elif how == "cut":
        del data[at:]
    elif how == "zeros":
        end = min(len(data), at + dice.randrange(1, 64))
        data[at:end] = bytes(end - at)
    elif how == "more":
        data += dice.randbytes(dice.randrange(1, 64))
    elif how == "empty":
        data.clear()
    elif how == "other":
        data = bytearray(dice.choice(files).read_bytes())
    else:
        data[at:at] = data[at : at + dice.randrange(1, 64)]
    path.write_bytes(data)
    return f"{path.relative_to(folder)} {how} at {at}"


def is_ours(path: Path, folder: Path) -> bool:
    """Whether it is a file that results depend on."""
    first = path.relative_to(folder).parts[0]
    return not first.startswith(NOT_DAMAGED) and first != "report.html"


def contents(folder: Path) -> dict[str, bytes]:
    """The contents of the files that results depend on."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and is_ours(path, folder)
    }
