"""Scale: how far the sizes of a run are from those of a paper."""

from collections.abc import Iterable, Mapping
from typing import Any

from jattn.training.config_checks import leaves, numbers_of

# What is no size: which studies run, where, and how often something is noted or begun anew.
NO_SIZE = ("study", "seed", "log_every", "parallel")
AS_THE_PAPER = "as preset paper"


def scale_of(
    config: Mapping[str, Any], paper: Mapping[str, Any] | None, groups: Iterable[str] = ()
) -> str:
    """The numbers of a config that differ from those of preset `paper`, beside those.

    Args:
        config: nested dicts.
        paper: the config of preset `paper`; None where there is none.
        groups: names of fields, or of groups of them, to leave out: those of other studies.

    Returns:
        `"steps 5000 (paper 500000)"`, fields separated by commas, or `""` without a paper's config.

    Example:
        >>> scale_of({"seeds": 2, "steps": {"a": 9}}, {"seeds": 8, "steps": {"a": 9}})
        'seeds 2 (paper 8)'
        >>> scale_of({"seeds": 2}, {"seeds": 2}), scale_of({"seeds": 2}, None)
        ('as preset paper', '')
    """
    if paper is None:
        return ""
    ours, theirs, left_out = leaves(config), leaves(paper), set(NO_SIZE) | set(groups)
    parts = [
        f"{field} {_shown(value)} (paper {_shown(theirs[field])})"
        for field, value in ours.items()
        if not left_out & set(field.split("."))
        and field in theirs
        and _shown(value) != _shown(theirs[field])
        and numbers_of(value)
    ]
    return ", ".join(parts) or AS_THE_PAPER


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        if len(value) > 4:
            return f"{len(value)} values to {_shown(value[-1])}"
        return "[" + " ".join(map(_shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
