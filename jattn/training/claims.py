"""Claims: what a paper says, what was measured, and whether the two agree."""

import dataclasses
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jattn.checks import check_choice

_ORDERS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
RELATIONS = ("~=", *_ORDERS, "is")


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement, with the number that should come out and the number that did.

    `holds` is, with t the tolerance (None counts as 0):

        "~="  |measured - predicted| <= t
        "<="  measured <= predicted + t       "<"  measured < predicted + t
        ">="  measured >= predicted - t       ">"  measured > predicted - t
        "is"  measured == predicted

    NaN never holds.

    Args:
        id: short name, unique in its experiment.
        statement: the claim in a sentence.
        source: where it is made, e.g. `"arXiv:1706.03762, section 3.2"`.
        predicted: the number it gives, or a boolean or a string for `"is"`.
        measured: what came out.
        relation: `"~="`, `"<="`, `">="`, `"<"`, `">"` or `"is"`.
        tolerance: slack, in the unit of the numbers.
        note: a remark, shown in the table and the report.

    Raises:
        ValueError: an unknown relation, or a value that is not a number where one is needed.

    Example:
        >>> claim = Claim("slope", "The slope is one half.", "arXiv:0000.00000", 0.5, 0.52, "~=", 0.05)
        >>> claim.holds
        True
    """  # noqa: E501

    id: str
    statement: str
    source: str
    predicted: Any
    measured: Any
    relation: str
    tolerance: float | int | None = None
    note: str = ""

    def __post_init__(self):
        check_choice("relation", self.relation, RELATIONS)
        for field in ("predicted", "measured", "tolerance"):
            value = getattr(self, field)
            if isinstance(value, np.ndarray | np.generic) or hasattr(value, "devices"):
                value = np.asarray(value).item() if np.size(value) == 1 else value
                object.__setattr__(self, field, value)
            number = isinstance(value, int | float)
            plain = number or isinstance(value, str | bool) or value is None
            if not (number if field != "tolerance" else number or value is None) and (
                self.relation != "is" or not plain
            ):
                raise ValueError(f"{field} of claim {self.id}: expected a number, got {value!r}")

    @property
    def holds(self) -> bool:
        """Whether what was measured agrees with what was predicted."""
        if self.relation == "is":
            return bool(self.measured == self.predicted)
        slack = 0.0 if self.tolerance is None else self.tolerance
        if any(math.isnan(x) for x in (self.measured, self.predicted, slack)):
            return False
        if self.relation == "~=":
            return abs(self.measured - self.predicted) <= slack
        signed = slack if self.relation in ("<=", "<") else -slack
        return bool(_ORDERS[self.relation](self.measured, self.predicted + signed))

    def entry(self) -> dict[str, Any]:
        """The claim as it stands in `claims.json`."""
        fields = ("id", "statement", "source", "predicted", "measured", "relation", "tolerance")
        return {field: _json(getattr(self, field)) for field in fields} | {"holds": self.holds}


def _json(value: Any) -> Any:
    """JSON has no NaN and no infinity; they become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def show(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def expectation(claim: Claim) -> str:
    """What was expected, in a few characters: `~= 0.5 ± 0.05`."""
    slack = "" if not claim.tolerance else f" ± {show(claim.tolerance)}"
    return f"{claim.relation} {show(claim.predicted)}{slack}"


def print_claims(claims: Sequence[Claim]) -> None:
    """Prints the claims as a table of at most 100 columns."""
    console = Console()
    width = min(console.width, 100) if console.is_terminal else 100
    table = Table(box=box.SIMPLE_HEAD, width=width, pad_edge=False)
    table.add_column("claim", overflow="fold", max_width=20)
    table.add_column("statement", ratio=1)
    table.add_column("expected", overflow="fold", max_width=22)
    table.add_column("measured", overflow="fold", min_width=8, max_width=12)
    table.add_column("holds", width=5)
    for claim in claims:
        table.add_row(
            Text(claim.id),
            Text(claim.statement + (f" [{claim.note}]" if claim.note else "")),
            Text(expectation(claim)),
            Text(show(claim.measured)),
            Text("yes", style="green") if claim.holds else Text("NO", style="bold red"),
        )
    Console(width=width).print(table)
