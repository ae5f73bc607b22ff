"""Claims: what a paper says, what was measured, and whether the two agree."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jattn.checks import check_choice
from jattn.training.verdicts import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    RELATIONS,
    Interval,
    agrees,
    interval_of,
    verdict,
)

PAPER, DERIVED, REFERENCE, IDENTITY = "paper", "derived", "reference", "identity"
KINDS = (PAPER, DERIVED, REFERENCE, IDENTITY)
OWN = "own threshold, because "
_DERIVED = "derived, in the setting of "
SHOWN = {HOLDS: ("yes", "green"), FAILS: ("NO", "bold red"), INCONCLUSIVE: ("open", "yellow")}


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement, with the number that should come out and the number that did.

    Whether it holds is decided by `jattn.training.verdicts.verdict`: by the number, and, where the
    values of single seeds or an interval are given, by that too: a median says nothing of the rest.
    NaN is shown as not tested, and counts as a claim that does not hold.

    Args:
        id: short name, unique in its experiment.
        statement: the claim in a sentence.
        source: where it is made, e.g. `"arXiv:1706.03762, section 3.2"`.
        predicted: the number it gives, or a boolean or a string for `"is"`.
        measured: what came out.
        relation: `"~="`, `"<="`, `">="`, `"<"`, `">"` or `"is"`.
        tolerance: slack, in the unit of the numbers.
        note: why this tolerance, or why it fails; shown in the table and the report.
        seeds: what came out of each seed, where `measured` sums several up.
        kind: `"paper"`: the paper states the number or the direction; `"derived"`: we derived it;
            `"reference"`: another implementation's figure, or an earlier one of ours;
            `"identity"`: true of the code whatever the theory says, counted apart. By default what
            the source says.
        interval: `(low, high)` of `measured`, e.g. two standard errors to each side; by default
            that of the median over the seeds, see `median_interval`.
        scale: our size against the paper's; by default what differs from preset `paper`.
        figure: name of the figure that shows it; by default the first of its study.

    Raises:
        ValueError: an unknown relation or kind, or a value that is no number where one is needed.

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
    kind: str = ""
    interval: Interval | None = None
    scale: str = ""
    figure: str = ""

    def __post_init__(self):
        check_choice("relation", self.relation, RELATIONS)
        if not self.kind:
            object.__setattr__(self, "kind", _kind_of(self.source))
        check_choice("kind", self.kind, KINDS)
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
            if self.interval is None:
                object.__setattr__(self, "interval", interval_of(self.relation, self.seeds or ()))
        if self.interval is not None:
            low, high = map(float, self.interval)
            if not low <= high:
                raise ValueError(
                    f"interval of claim {self.id}: expected low <= high, got {self.interval}"
                )
            object.__setattr__(self, "interval", (low, high))

    @property
    def verdict(self) -> str:
        """`"holds"`, `"fails"` or `"inconclusive"`."""
        return verdict(self.relation, self.predicted, self.measured, self.tolerance, self.interval)

    @property
    def holds(self) -> bool:
        """Whether what was measured agrees with what was predicted, and its seeds with it."""
        return self.verdict == HOLDS

    @property
    def seeds_holding(self) -> int:
        """How many of the seeds agree with what was predicted, each by itself."""
        return sum(
            agrees(self.relation, self.predicted, value, self.tolerance)
            for value in self.seeds or ()
        )

    def entry(self) -> dict[str, Any]:
        """The claim as it stands in `claims.json`."""
        fields = ("id", "statement", "source", "predicted", "measured", "relation", "tolerance")
        entry = {field: _json(getattr(self, field)) for field in fields} | {"holds": self.holds}
        interval = None if self.interval is None else [_json(end) for end in self.interval]
        seeds: dict[str, Any] = {"n": None, "interval": interval}
        if self.seeds is not None:
            seeds["n"] = len(self.seeds)
            seeds["values"] = [_json(value) for value in self.seeds]
            entry["seeds_holding"] = seeds["holding"] = self.seeds_holding
        return entry | {
            "verdict": self.verdict,
            "kind": self.kind,
            "note": self.note or _reason(self.source),
            "seeds": seeds,
            "scale": self.scale,
            "figure": self.figure,
        }

    @property
    def remark(self) -> str:
        """The note, and how many seeds hold."""
        of = "" if not self.seeds else f"{self.seeds_holding} of {len(self.seeds)} seeds hold"
        return "; ".join(filter(None, (self.note, of)))


def _kind_of(source: str) -> str:
    """A number of our own is the paper's claim where the paper states the effect."""
    ours = source.startswith(_DERIVED) or (
        source.startswith(OWN) and "; the effect: " not in source
    )
    return DERIVED if ours else PAPER


def _reason(source: str) -> str:
    """Why a number of our own was chosen."""
    if not source.startswith(OWN):
        return ""
    return "this bound, because " + source.removeprefix(OWN).partition("; the effect: ")[0]


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
        return f"{_DERIVED}{place}" if derived else place

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
        **more: Any,
    ) -> Claim:
        """A claim about what this paper says; arguments as for `Claim` and `Paper.source`."""
        source = self.source(where, because=because, derived=derived)
        values = (predicted, measured, relation, tolerance)
        return Claim(id, statement, source, *values, note=note, seeds=seeds, **more)


def own(because: str, effect: str = "") -> str:
    """The source of a claim whose number is our own choice, or our own run's.

    Args:
        because: why this number.
        effect: where the effect itself is stated, if a paper does so without this number.

    Example:
        >>> own("chance is 0.25", "arXiv 0000.00000")
        'own threshold, because chance is 0.25; the effect: arXiv 0000.00000'
    """
    return f"{OWN}{because}" + (f"; the effect: {effect}" if effect else "")


def show(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, float) and math.isnan(value):
        return "nan: not tested"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def expectation(claim: Claim) -> str:
    """What was expected, in a few characters: `~= 0.5 ± 0.05`, `<= 0.05`."""
    return expectation_of(claim.entry())


def expectation_of(entry: Mapping[str, Any]) -> str:
    """As `expectation`, of an entry of `claims.json`.

    Example:
        >>> expectation_of({"relation": "<=", "predicted": 1.0, "tolerance": 0.5})
        '<= 1.5'
    """
    relation, predicted, tolerance = (entry[f] for f in ("relation", "predicted", "tolerance"))
    if not tolerance or isinstance(predicted, str):
        return f"{relation} {show(predicted)}"
    if relation in ("~=", "is"):
        return f"{relation} {show(predicted)} ± {show(tolerance)}"
    return f"{relation} {show(predicted + (tolerance if relation in ('<=', '<') else -tolerance))}"


def upgraded(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of `claims.json` with all fields of now, whichever version wrote it.

    Example:
        >>> old = {"id": "a", "source": "arXiv 0000.00000", "holds": False, "seeds": [0.1, 0.2]}
        >>> new = upgraded(old)
        >>> new["verdict"], new["kind"], new["seeds"]["n"]
        ('fails', 'paper', 2)
    """
    seeds = entry.get("seeds")
    if not isinstance(seeds, dict):
        seeds = {"n": None if seeds is None else len(seeds), "interval": None} | (
            {} if seeds is None else {"values": seeds}
        )
    return {
        "verdict": HOLDS if entry.get("holds") else FAILS,
        "kind": _kind_of(entry.get("source", "")),
        "note": _reason(entry.get("source", "")),
        "scale": "",
        "figure": "",
        **entry,
        "seeds": seeds,
    }


def summary(claims: Iterable[Claim | dict[str, Any]]) -> str:
    """How many claims hold, identities apart: `3 of 4 claims hold, 1 inconclusive`.

    Args:
        claims: claims, or their entries.
    """
    pairs = [
        (c["kind"], c["verdict"]) if isinstance(c, dict) else (c.kind, c.verdict) for c in claims
    ]
    findings = [verdict for kind, verdict in pairs if kind != IDENTITY]
    identities = [verdict for kind, verdict in pairs if kind == IDENTITY]
    count = Counter(findings)
    text = f"{count[HOLDS]} of {len(findings)} claims hold"
    if count[INCONCLUSIVE]:
        text += f", {count[INCONCLUSIVE]} inconclusive"
    if identities:
        text += f"; {identities.count(HOLDS)} of {len(identities)} identities hold"
    return text


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
            Text(*SHOWN[claim.verdict]),
        )
    Console(width=width).print(table)
