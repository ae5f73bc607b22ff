"""Writes how many claims hold, by experiment, kind and verdict, into the README.

    python -m experiments.tools.claim_counts runs/scan_and_snap runs/pavlovian ...

Rows of other experiments stay.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jattn.training.claims import KINDS
from jattn.training.gallery import read_claims
from jattn.training.provenance import read
from jattn.training.stores import Folder, folder_of
from jattn.training.verdicts import VERDICTS

PAGE = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- claims: begin -->", "<!-- claims: end -->"
HEAD = f"| experiment | {' | '.join(KINDS)} | run |\n|---|{'---|' * len(KINDS)}---|\n"
ROW = re.compile(r"^\| `(?P<name>\w+)` \|(?P<cells>.*)\| (?P<run>[^|]*) \|$", re.MULTILINE)

Counts = dict[str, Counter]  # of verdicts, by kind


def counted(claims: Sequence[Mapping[str, Any]]) -> Counts:
    """How many claims of each kind have each verdict.

    Example:
        >>> counted([{"kind": "paper", "verdict": "holds"}])["paper"]["holds"]
        1
    """
    found: Counts = {kind: Counter() for kind in KINDS}
    for claim in claims:
        found[claim["kind"]][claim["verdict"]] += 1
    return found


def row(name: str, counts: Counts, run: str) -> str:
    """A line of the table: holding, failing and inconclusive claims of each kind."""
    cells = ("/".join(str(counts[kind][v]) for v in VERDICTS) for kind in KINDS)
    return f"| {name} | {' | '.join(cells)} | {run} |\n"


def rows(text: str) -> dict[str, tuple[Counts, str]]:
    """The table's counts and runs by experiment."""
    found = {}
    for line in ROW.finditer(text):
        cells = [cell.strip().split("/") for cell in line["cells"].split("|")]
        counts = {
            kind: Counter(dict(zip(VERDICTS, map(int, cell), strict=True)))
            for kind, cell in zip(KINDS, cells, strict=True)
        }
        found[line["name"]] = (counts, line["run"])
    return found


def table(found: Mapping[str, tuple[Counts, str]]) -> str:
    """The table, with a last line for all."""
    total: Counts = {kind: Counter() for kind in KINDS}
    for counts, _ in found.values():
        for kind in KINDS:
            total[kind].update(counts[kind])
    body = "".join(row(f"`{name}`", *found[name]) for name in sorted(found))
    return f"\n{HEAD}{body}{row('all', total, '')}\n"


def described(workdir: Folder) -> str:
    """When a run was made, on what, and how long it took."""
    sessions = read(workdir)
    if not sessions:
        return ""
    seconds = sum(entry.get("seconds") or 0 for entry in sessions)
    return f"{sessions[-1]['started'][:10]}, {sessions[-1]['device']}, {seconds:.0f} s"


def main(argv: Sequence[str]) -> int:
    """The command line; see the module's docstring."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{PAGE}: expected a table between {BEGIN} and {END}", file=sys.stderr)
        return 2
    found = rows(old)
    for name in argv:
        folder = folder_of(name)
        try:
            claims = read_claims(folder)
            experiment = json.loads((folder / "config.json").read_text())["experiment"]
        except (OSError, ValueError, KeyError) as error:
            print(f"{folder}: expected the workdir of a finished run: {error}", file=sys.stderr)
            return 2
        found[experiment] = (counted(claims), described(folder))
    PAGE.write_text(f"{before}{BEGIN}\n{table(found)}{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
