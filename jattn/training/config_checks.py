"""What fields of a config may be: of the same kind as in the preset, and of use as a number."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections

from jattn.training.errors import UsageError

LARGEST = 2**31 - 1
# Fields of earlier versions, and what they are called now.
RENAMED = {"part": "study"}
FLAG = re.compile(r"--?config\.(?P<field>[^=]+)(=(?P<value>.*))?", re.DOTALL)


def check_flags(config: ml_collections.ConfigDict, flags_given: Sequence[str]) -> None:
    """Refuses `--config.FIELD=VALUE` of fields that are not there, and values of another type.

    Raises:
        UsageError: a line that names the flag, what was expected and what came.
    """
    defaults = leaves(config.to_dict())
    for argument in flags_given:
        found = FLAG.fullmatch(argument)
        if not found:
            continue
        field, value = found["field"], found["value"]
        flag = f"--config.{field}"
        if field not in defaults:
            inside = [name for name in defaults if name.startswith(f"{field}.")]
            if inside:
                raise UsageError(f"{flag}: expected one of its fields: {', '.join(inside)}")
            now = RENAMED.get(field)
            meant = f"; did you mean {now}?" if now in defaults else near(field, defaults)
            raise UsageError(
                f"{flag}: the config has no such field{meant}; it has {', '.join(defaults)}"
            )
        default = defaults[field]
        if value is None and not isinstance(default, bool):
            raise UsageError(f"{flag}: expected a value: {flag}={default}")
        if value is not None and not _reads(value, default):
            raise UsageError(
                f"{flag}: expected {_kind(default)}, as {default!r}; got {_shown(value)!r}"
            )


def check_values(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    may_be_zero: Sequence[str] = (),
    *,
    prefix: str = "--config.",
) -> None:
    """Refuses values that no experiment can use, in the fields that were changed.

    A number that is positive in the preset is a size, or a rate: it stays so.

    Args:
        before: the preset's values by their dotted names, see `leaves`.
        after: the values now.
        may_be_zero: names of whole numbers that are positive in the preset, and may be 0.
        prefix: what the names of fields start with in messages.

    Raises:
        UsageError: a line that names the flag, what was expected and what came.
    """
    for field, value in after.items():
        default = before.get(field)
        if value == default:
            continue
        if not _like(value, default):
            raise UsageError(
                f"{prefix}{field}: expected {_kind(default)}, as {default!r}; got {_shown(value)}"
            )
        numbers, defaults = numbers_of(value), numbers_of(default)
        least = min(defaults, default=-math.inf)
        whole = all(isinstance(x, int) for x in defaults)
        for number in numbers:
            expected = None
            if math.isnan(number) or math.isinf(number):
                expected = "a finite number"
            elif isinstance(number, int) and abs(number) > LARGEST:
                expected = f"at most {LARGEST}"
            elif whole and least >= 1 and number < 1 and field.split(".")[-1] not in may_be_zero:
                expected = "at least 1"
            elif least >= 0 and number < 0:
                expected = "no negative number"
            if expected:
                raise UsageError(f"{prefix}{field}: expected {expected}, got {_shown(value)}")
        if defaults and not numbers and isinstance(value, tuple | list):
            raise UsageError(f"{prefix}{field}: expected at least one number, got none")


def numbers_of(value: Any) -> list[int | float]:
    """The numbers in a value, which may be tuples of tuples."""
    if isinstance(value, list | tuple):
        return [number for item in value for number in numbers_of(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested dicts by their dotted names: `{"mesh.data": 1}`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: value
        for field, branch in tree.items()
        for name, value in leaves(branch, f"{prefix}.{field}" if prefix else field).items()
    }


def near(word: str, known: Iterable[str]) -> str:
    """A question whether the known word nearest to this one was meant, if one is near.

    Example:
        >>> near("seed", ["steps", "seeds"])
        '; did you mean seeds?'
    """
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(default: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if type(default) in kinds:
        return kinds[type(default)]
    inner = default[0]
    if isinstance(inner, tuple | list):
        return "groups in brackets"
    words = {int: "whole numbers", float: "numbers", str: "words"}
    return f"{words.get(type(inner), 'values')} separated by commas"


def _reads(text: str, default: Any) -> bool:
    """Whether the text of a flag can be read as a value of the same type; not what is in tuples."""
    try:
        if isinstance(default, bool):
            return text.lower() in ("true", "false", "1", "0", "t", "f")
        if isinstance(default, int):
            return isinstance(int(text, 0), int)
        return not isinstance(default, float) or isinstance(float(text), float)
    except ValueError:
        return False


def _like(value: Any, default: Any) -> bool:
    """Whether a value is of the same kind; what is in brackets like the first that is there."""
    if isinstance(default, tuple | list):
        return isinstance(value, tuple | list) and (
            not default or all(_like(item, default[0]) for item in value)
        )
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)
