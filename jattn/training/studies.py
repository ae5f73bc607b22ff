"""Studies: the named pieces of an experiment, of which a config chooses some."""

from collections.abc import Callable, Mapping
from typing import Any

from jattn.training.claims import Claim
from jattn.training.errors import UsageError
from jattn.training.run import Run

ALL = "all"

Study = Callable[[Run, Any], list[Claim]]


def run_studies(run: Run, config: Any, studies: Mapping[str, Study]) -> list[Claim]:
    """Runs the studies that `config.study` names, and collects their claims.

    They run in the order of `studies`, each once, whatever the order in which they are named. What
    a study computes it keeps itself (`fit`, `sweep`, `Run.cached`), so a run that is started again
    takes up in the study in which it stopped.

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
    return [claim for name in studies if name in chosen for claim in studies[name](run, config)]
