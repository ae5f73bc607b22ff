"""Runs the soak and prints what it found; see the package's docstring."""

import os

# A fork has one thread. The library of linear algebra starts its own when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import matplotlib.pyplot  # noqa: F401, so that forks have it

from experiments.flags import Parser, some_of
from experiments.tools.soak import __doc__ as description
from experiments.tools.soak.damage import damage
from experiments.tools.soak.kills import soak

PARTS = ("one", "two", "damages")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("tools.soak", description)
    parser.add_argument("--kills", type=_number, default=100, help="of one process, and of two")
    parser.add_argument("--damages", type=_number, default=1000, help="of files, one at a time")
    parser.add_argument("--seed", type=_number, default=0, help="of the moments and the damages")
    parser.add_argument("--only", type=some_of("part", PARTS), default=PARTS, help=str(PARTS))
    chosen = parser.parse_args(argv)
    # No `TemporaryDirectory`: every fork that ends would remove it.
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    try:
        share_programs(folder / "programs")
        problems = run_parts(chosen.only, chosen.kills, chosen.damages, chosen.seed, folder)
    finally:
        shutil.rmtree(folder)
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 3 if problems else 0


def share_programs(folder: Path) -> None:
    """Lets all processes started from here find compiled programs in a folder."""
    settings = {
        "jax_platforms": "cpu",
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)  # for forks
        os.environ[name.upper()] = str(value)  # for what starts Python


def run_parts(parts: Sequence[str], kills: int, damages: int, seed: int, folder: Path) -> list[str]:
    """Runs some of the three parts; returns what went wrong, a line each."""
    problems: list[str] = []
    tell = lambda text: print(text, flush=True)
    for part in parts:
        here = folder / part
        here.mkdir()
        began = time.monotonic()
        took = lambda began=began: f"{time.monotonic() - began:.0f} s"
        if part == "damages" and damages:
            done = damage(here, damages, seed, tell)
            tell(
                f"damages: {done.damages}; {done.recovered} runs ended with the same bits, "
                f"{done.refused} were refused in one line, {len(done.problems)} neither "
                f"({done.fresh} met by a Python just started; seed {seed}, {took()})"
            )
            problems += done.problems
        elif part != "damages" and kills:
            processes = PARTS.index(part) + 1
            found = soak(here, kills, processes, seed, tell)
            moments = ", ".join(f"{count} {moment}" for moment, count in found.moments.items())
            tell(
                f"{part} process{'es' if processes > 1 else ''}: {found.equal} of {found.kills} "
                f"kills left no trace, in {found.runs} runs (moments: {moments}; {found.fresh} "
                f"times a Python was started; seed {seed}, {took()})"
            )
            problems += found.problems
    return problems


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
