"""What every mechanism of the zoo costs at one size, as a table and as CSV.

    python -m experiments.zoo_table                         all, in the terminal
    python -m experiments.zoo_table --kind=gate --csv=gates.csv
    python -m experiments.zoo_table --write                 docs/zoo_table.csv and docs/zoo_table.md

Parameters, operations of a call (loops counted as often as they run), bytes that XLA sets aside
for it, and the median time of a call on this machine, at --dim, --heads, --tokens and --batch.
Mechanisms are as they are by default, mixers not causal where they can be.
"""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

import jattn
from experiments.flags import Parser
from jattn.mechanisms.mechanism import KINDS
from jattn.zoo import Cost

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = Cost._fields


def rows_of(found: Sequence[Cost]) -> list[list[str]]:
    """The cells of each row, as text."""
    text = lambda value: f"{value:.0f}" if isinstance(value, float) else str(value)
    return [["" if value is None else text(value) for value in row] for row in found]


def as_csv(found: Sequence[Cost]) -> str:
    """The table as CSV, with a line of names.

    Example:
        >>> print(as_csv([Cost("eca", "gate", "channel", False, 3, 10.0, 8, None)]).strip())
        name,kind,family,causal,parameters,flops,temporaries,microseconds
        eca,gate,channel,False,3,10,8,
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows_of(found))
    return out.getvalue()


def as_markdown(found: Sequence[Cost], size: str) -> str:
    """A page with a table for each kind, the cheapest in operations first."""
    parts = [
        "# The zoo by cost\n",
        f"Written by `python -m experiments.zoo_table --write`: {size}.\n",
        "Parameters, operations of one call, bytes that XLA sets aside for it, and the median\n"
        "time of a call, which holds for that machine as busy as it was. Mechanisms are as they\n"
        "are by default; a causal form stands where there is no other.\n",
    ]
    for kind in KINDS:
        own = sorted((row for row in found if row.kind == kind), key=lambda row: row.flops)
        if not own:
            continue
        parts.append(f"## {kind.capitalize()}s\n")
        lines = ["| name | family | parameters | MFLOP | KiB | ms |", "|---" * 6 + "|"]
        for row in own:
            took = "" if row.microseconds is None else f"{row.microseconds / 1e3:.2f}"
            lines.append(
                f"| `{row.name}`{' (causal)' if row.causal else ''} | {row.family} "
                f"| {row.parameters:,} | {row.flops / 1e6:.3f} | {row.temporaries / 1024:,.0f} "
                f"| {took} |"
            )
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; see the module's docstring."""
    parser = Parser("zoo_table", __doc__)
    for name, default in (("dim", 64), ("heads", 4), ("tokens", 256), ("batch", 1), ("calls", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(argv)
    sizes = {name: getattr(given, name) for name in ("dim", "heads", "tokens", "batch", "calls")}
    try:
        rows = jattn.zoo.table(jattn.zoo.names(kind=given.kind), **sizes)
    except ValueError as error:
        parser.error(str(error))
    found = []
    print(",".join(COLUMNS))
    for row in rows:
        found.append(row)
        print(",".join(rows_of([row])[0]), flush=True)
    if given.csv is not None:
        given.csv.write_text(as_csv(found))
    if given.write:
        size = ", ".join(f"{name} {sizes[name]}" for name in ("dim", "heads", "tokens", "batch"))
        page = as_markdown(found, f"{size}, float32, on {jax.devices()[0].device_kind}")
        (DOCS / "zoo_table.md").write_text(page)
        (DOCS / "zoo_table.csv").write_text(as_csv(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
