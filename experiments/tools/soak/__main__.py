"""Runs the soak and prints what it found; see the package's docstring."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.flags import Parser
from experiments.tools.soak import __doc__ as description
from experiments.tools.soak.damage import damage
from experiments.tools.soak.kills import soak


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("tools.soak", description)
    parser.add_argument("--kills", type=_number, default=100, help="of one process, and of two")
    parser.add_argument("--damages", type=_number, default=1000, help="of files, one at a time")
    parser.add_argument("--seed", type=_number, default=0, help="of the moments and the damages")
    parser.add_argument("--only", choices=("one", "two", "damages"), help="one of the three parts")
    chosen = parser.parse_args(argv)
    problems: list[str] = []
    tell = lambda text: print(text, flush=True)
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        for part, processes in (("one", 1), ("two", 2)):
            if not chosen.kills or chosen.only not in (None, part):
                continue
            here = Path(folder) / part
            here.mkdir()
            found = soak(here, chosen.kills, processes, chosen.seed, tell)
            moments = ", ".join(f"{count} {moment}" for moment, count in found.moments.items())
            tell(
                f"{part} process{'es' if processes > 1 else ''}: {found.equal} of {found.kills} "
                f"kills left no trace, in {found.runs} runs (moments: {moments})"
            )
            problems += found.problems
        if chosen.damages and chosen.only in (None, "damages"):
            here = Path(folder) / "damages"
            here.mkdir()
            done = damage(here, chosen.damages, chosen.seed, tell)
            tell(
                f"damages: {done.damages}; {done.recovered} runs ended with the same bits, "
                f"{done.refused} were refused in one line, {len(done.problems)} neither"
            )
            problems += done.problems
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 3 if problems else 0


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
