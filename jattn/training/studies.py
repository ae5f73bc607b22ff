"""Studies: the named pieces of an experiment, of which a config chooses some."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jattn.training import configs
from jattn.training.claims import Claim
from jattn.training.errors import UsageError
from jattn.training.run import Run

ALL = "all"

Study = Callable[[Run, Any], list[Claim]]


def run_studies(run: Run, config: Any, studies: Mapping[str, Study]) -> list[Claim]:
    """Runs the studies that `config.study` names, and collects their claims.

    They run in the order of `studies`, each once, whatever the order in which they are named. What
    a study computes it keeps itself (`fit`, `sweep`, `Run.cached`), so a run that is started again
    takes up in the study in which it stopped. A claim that names no figure is shown by one that its
    study saved, see `completed`.

    Args:
        run: the open workdir.
        config: the settings; `config.study` is `"all"`, or names separated by commas.
        studies: functions `(run, config) -> claims` by name.

    Returns:
        The claims of all that were chosen.

    Raises:
        UsageError: a name that is not among `studies`.

    Example:
        >>> import tempfile
        >>> from types import SimpleNamespace
        >>> half = Claim("half", "It is 1/2.", "by hand", 0.5, 0.5, "~=")
        >>> studies = {"one": lambda run, config: [half], "two": lambda run, config: []}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Run.open(folder, {}, name="example") as run:
        ...         run_studies(run, SimpleNamespace(study="two,one"), studies)[0].id
        'half'
    """
    chosen = list(studies) if config.study == ALL else config.study.split(",")
    for name in chosen:
        if name not in studies:
            raise UsageError(f"study: expected any of {', '.join(studies)} or all, got {name!r}")
    claims = []
    for name in filter(chosen.__contains__, studies):
        before, found = set(run.figures), []
        planner = run.parallel.planner
        with contextlib.nullcontext() if planner is None else planner.study(name):
            found = studies[name](run, config)
        figures = [figure for figure in run.figures if figure not in before]
        claims += completed(run, found, figures, set(studies) - {name})
    return claims


def completed(
    run: Run, claims: Sequence[Claim], figures: Sequence[str], other_studies: Iterable[str] = ()
) -> list[Claim]:
    """The claims with a figure and a scale, where they name none.

    Args:
        run: what they come from.
        claims: as an experiment made them.
        figures: names of figures that may show them: the first whose caption names the claim, else
            the first.
        other_studies: studies whose sizes say nothing of these claims.
    """
    scale = configs.scale(run.name, run.config, other_studies)

    def figure_of(claim: Claim) -> str:
        naming = [name for name in figures if claim.id in run.figures[name].split()]
        return next(iter([*naming, *figures]), "")

    return [
        dataclasses.replace(
            claim, figure=claim.figure or figure_of(claim), scale=claim.scale or scale
        )
        for claim in claims
    ]
