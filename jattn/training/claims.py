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

    NaN never holds: it is shown as not tested, and counts as a claim that does not hold. Where the
    values of single seeds are given, more than half of them must hold, too: a median says nothing
    of the rest.

    Args:
        id: short name, unique in its experiment.
        statement: the claim in a sentence.
        source: where it is made, e.g. `"arXiv:1706.03762, section 3.2"`.
        predicted: the number it gives, or a boolean or a string for `"is"`.
        measured: what came out.
        relation: `"~="`, `"<="`, `">="`, `"<"`, `">"` or `"is"`.
        tolerance: slack, in the unit of the numbers.
        note: a remark, shown in the table and the report.
        seeds: what came out of each seed, where `measured` sums several up.

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
    seeds: Sequence[float] | np.ndarray | None = None

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
        if self.seeds is not None:
            object.__setattr__(self, "seeds", np.asarray(self.seeds, float).ravel().tolist())

    @property
    def holds(self) -> bool:
        """Whether what was measured agrees with what was predicted."""
        most = not self.seeds or 2 * self.seeds_holding > len(self.seeds)
        return self._agrees(self.measured) and most

    @property
    def seeds_holding(self) -> int:
        """How many of the seeds agree with what was predicted, each by itself."""
        return sum(self._agrees(value) for value in self.seeds or ())

    def _agrees(self, measured: Any) -> bool:
        if self.relation == "is":
            return bool(measured == self.predicted)
        slack = 0.0 if self.tolerance is None else self.tolerance
        if any(math.isnan(x) for x in (measured, self.predicted, slack)):
            return False
        if self.relation == "~=":
            return abs(measured - self.predicted) <= slack
        signed = slack if self.relation in ("<=", "<") else -slack
        return bool(_ORDERS[self.relation](measured, self.predicted + signed))

    def entry(self) -> dict[str, Any]:
        """The claim as it stands in `claims.json`."""
        fields = ("id", "statement", "source", "predicted", "measured", "relation", "tolerance")
        entry = {field: _json(getattr(self, field)) for field in fields} | {"holds": self.holds}
        if self.seeds is not None:
            seeds = [_json(value) for value in self.seeds]
            entry |= {"seeds": seeds, "seeds_holding": self.seeds_holding}
        return entry

    @property
    def remark(self) -> str:
        """The note, and how many seeds hold."""
        of = "" if not self.seeds else f"{self.seeds_holding} of {len(self.seeds)} seeds hold"
        return "; ".join(filter(None, (self.note, of)))


def _json(value: Any) -> Any:
    """JSON has no NaN and no infinity; they become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


@dataclasses.dataclass(frozen=True)
class Paper:
    """A source of claims, cited the same way in all that are made through it.

    Args:
        cite: where to find it, e.g. `"arXiv 1706.03762"`.
        title: its name, or the start of it.

    Example:
        >>> paper = Paper("arXiv 0000.00000", "Of slopes")
        >>> paper.claim("slope", "It is 1/2.", 0.5, 0.52, "~=", 0.05, where="fig. 1").source
        'arXiv 0000.00000 (Of slopes), fig. 1'
    """

    cite: str
    title: str

    def source(self, where: str = "", *, because: str = "", derived: bool = False) -> str:
        """Says whose a claim's number is, and where in the paper what it is about is found.

        Args:
            where: the section or figure.
            because: why this number, where it is our own choice, another run's, or this run's.
            derived: whether the number follows from the paper's setting, by a form that it does
                not give.

        Example:
            >>> Paper("arXiv 0000.00000", "Of slopes").source(because="chance is 0.25")
            'own threshold, because chance is 0.25; the effect: arXiv 0000.00000 (Of slopes)'
        """
        place = f"{self.cite} ({self.title})" + (f", {where}" if where else "")
        if because:
            return own(because, place)
        return f"derived, in the setting of {place}" if derived else place

    def claim(
        self,
        id: str,
        statement: str,
        predicted: Any,
        measured: Any,
        relation: str,
        tolerance: float | int | None = None,
        *,
        where: str = "",
        because: str = "",
        derived: bool = False,
        note: str = "",
        seeds: Sequence[float] | np.ndarray | None = None,
    ) -> Claim:
        """A claim about what this paper says; arguments as for `Claim` and `Paper.source`."""
        source = self.source(where, because=because, derived=derived)
        return Claim(
            id, statement, source, predicted, measured, relation, tolerance, note=note, seeds=seeds
        )


def own(because: str, effect: str = "") -> str:
    """The source of a claim whose number is our own choice, or our own run's.

    Args:
        because: why this number.
        effect: where the effect itself is stated, if a paper does so without this number.

    Example:
        >>> own("chance is 0.25", "arXiv 0000.00000")
        'own threshold, because chance is 0.25; the effect: arXiv 0000.00000'
    """
    return f"own threshold, because {because}" + (f"; the effect: {effect}" if effect else "")


def show(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, float) and math.isnan(value):
        return "nan: not tested"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def expectation(claim: Claim) -> str:
    """What was expected, in a few characters: `~= 0.5 ± 0.05`, `<= 0.05`."""
    if not claim.tolerance:
        return f"{claim.relation} {show(claim.predicted)}"
    if claim.relation in ("~=", "is"):
        return f"{claim.relation} {show(claim.predicted)} ± {show(claim.tolerance)}"
    signed = claim.tolerance if claim.relation in ("<=", "<") else -claim.tolerance
    return f"{claim.relation} {show(claim.predicted + signed)}"


def summary(holds: Sequence[bool]) -> str:
    """`3 of 4 claims hold`."""
    return f"{sum(holds)} of {len(holds)} claims hold"


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
            Text(claim.statement + (f" [{claim.remark}]" if claim.remark else "")),
            Text(expectation(claim)),
            Text(show(claim.measured)),
            Text("yes", style="green") if claim.holds else Text("NO", style="bold red"),
        )
    Console(width=width).print(table)
