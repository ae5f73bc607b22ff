"""Writes claims of runs of the language model into docs/language_model.md, a section a run.

    python -m experiments.tools.claims_page runs/language_model_sinks runs/language_model_heads ...

Sections of other experiments stay. `make docs` reads verdicts of methods from this page.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jattn.training.claims import summary, upgraded
from jattn.training.verdicts import FAILS, HOLDS, INCONCLUSIVE

PAGE = Path(__file__).parents[2] / "docs" / "language_model.md"
INTRODUCTION = """# The language model under the lens: what came of the claims

Tables of claims of preset `small`, written by `python -m experiments.tools.claims_page WORKDIR...`
from the runs' `claims.json`, of SmolLM2-135M on 2 CPU cores. A model of this size need not show
what one fifty times as large shows: then the table says so. "Own threshold" says why the number
that is expected is ours where a paper gives none.
"""
MARKS = {HOLDS: "yes", FAILS: "**no**", INCONCLUSIVE: "open"}
HEADER = "| claim | statement | source | expected | measured | holds |\n|---|---|---|---|---|---|\n"


class Row(NamedTuple):
    """A claim as the page has it."""

    experiment: str
    claim: str
    source: str
    holds: bool


def sections(text: str) -> dict[str, str]:
    """Tables by the name of their experiment."""
    parts = re.split(r"^## `(\w+)`\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(claims: Sequence[dict[str, Any]]) -> str:
    """The body of a section."""
    rows = []
    claims = [upgraded(claim) for claim in claims]
    for claim in claims:
        cells = (
            f"`{claim['id']}`",
            claim["statement"],
            claim["source"],
            f"{claim['relation']} {_shown(claim['predicted'])}"
            + (f" ± {_shown(claim['tolerance'])}" if claim["tolerance"] else ""),
            _shown(claim["measured"]),
            MARKS[claim["verdict"]],
        )
        rows.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |\n")
    return f"\n{summary(claims)}.\n\n{HEADER}{''.join(rows)}\n"


def page(found: dict[str, str]) -> str:
    """The page of all sections, in order of their names."""
    bodies = (f"\n## `{name}`\n{found[name].rstrip()}\n" for name in sorted(found))
    return INTRODUCTION + "".join(bodies)


def rows(text: str) -> list[Row]:
    """All claims on the page."""
    found = []
    for name, body in sections(text).items():
        for line in body.splitlines():
            if line.startswith("| `"):
                cells = [cell.strip() for cell in line.strip("|").split(" | ")]
                found.append(Row(name, cells[0].strip("` "), cells[2], cells[5] == "yes"))
    return found


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str]) -> int:
    """The command line; see the module's docstring."""
    found = sections(PAGE.read_text()) if PAGE.exists() else {}
    for name in argv:
        folder = Path(name)
        try:
            claims = json.loads((folder / "claims.json").read_text())
            experiment = json.loads((folder / "config.json").read_text())["experiment"]
        except (OSError, ValueError, KeyError) as error:
            print(f"{folder}: expected the workdir of a finished run: {error}", file=sys.stderr)
            return 2
        found[experiment] = table(claims)
    PAGE.write_text(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
