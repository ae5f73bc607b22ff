"""Verification: which verdicts change with other seeds, a longer horizon, and another size."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from jattn.training import configs
from jattn.training.claims import show
from jattn.training.config_checks import leaves
from jattn.training.verdicts import INCONCLUSIVE

SEED, HORIZON, SIZE = "seed", "horizon", "size"
VARIANTS = (SEED, HORIZON, SIZE)
FARTHER = 1_000  # so far is the first of the other seeds from the first of the run's own


class Change(NamedTuple):
    """A verdict that is another one in a variant.

    Attributes:
        experiment, variant, claim: where.
        before, after: the verdicts.
        measured: what came out before and after.
        said: whether an interval said so: one of the two is inconclusive.
    """

    experiment: str
    variant: str
    claim: str
    before: str
    after: str
    measured: tuple[Any, Any]
    said: bool


def fields(name: str, preset: str, variant: str) -> dict[str, Any]:
    """The fields of a config that a variant changes, and their values there.

    Args:
        name: the experiment, whose config has `VERIFY = {"horizon": {...}, "size": {...}}`.
        preset: of its config.
        variant: one of `VARIANTS`.

    Example:
        >>> fields("factor_graph", "small", "size"), fields("factor_graph", "small", "seed")
        ({'causes': 10}, {'seed': 1000})
    """
    module = configs.load_module(name)
    if variant != SEED:
        return dict(module.VERIFY[variant])
    config = leaves(configs.load(module, name, preset).to_dict())
    return {
        field: value + FARTHER
        for field, value in config.items()
        if field.rpartition(".")[2] == "seed"
    }


def changes(
    experiment: str,
    variant: str,
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
) -> list[Change]:
    """The claims of both runs whose verdicts differ; one that only one of them makes is no change.

    Args:
        experiment, variant: what the runs are of.
        before, after: entries of their `claims.json`.

    Example:
        >>> entry = {"id": "slope", "verdict": "holds", "measured": 0.5}
        >>> [c.said for c in changes("toy", "seed", [entry], [entry | {"verdict": "fails"}])]
        [False]
    """
    then = {claim["id"]: claim for claim in after}
    return [
        Change(
            experiment,
            variant,
            claim["id"],
            claim["verdict"],
            other["verdict"],
            (claim["measured"], other["measured"]),
            INCONCLUSIVE in (claim["verdict"], other["verdict"]),
        )
        for claim in before
        if (other := then.get(claim["id"])) and other["verdict"] != claim["verdict"]
    ]


def print_changes(found: Sequence[Change], compared: int) -> None:
    """Prints each verdict that changed, and how many there were to change.

    Args:
        found: the changes.
        compared: how many verdicts were compared.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("experiment", "variant", "claim", "before", "after", "measured", "interval"):
        table.add_column(column, overflow="fold")
    for change in found:
        before, after = map(show, change.measured)
        said = "said so" if change.said else "did NOT say so"
        table.add_row(*change[:5], f"{before} -> {after}", said)
    console = Console()
    Console(width=console.width if console.is_terminal else 120).print(table)
    silent = sum(not change.said for change in found)
    print(f"{len(found)} of {compared} verdicts changed, {silent} without an interval that said so")
