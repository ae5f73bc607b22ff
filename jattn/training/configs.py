"""Configs of experiments: found by file or by name, with a preset, and checked field by field."""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from jattn.training.config_checks import check_flags, check_values, leaves, near
from jattn.training.errors import UsageError
from jattn.training.scale import scale_of

PAPER = "paper"  # the preset with the paper's own sizes


def split(spec: str, name: str) -> tuple[str, str | None]:
    """`PATH[:PRESET]` as a pair; without a path, that of the experiment `name`.

    Example:
        >>> split("pavlovian:small", "pavlovian"), split(":full", "pavlovian")
        (('pavlovian', 'small'), ('configs/pavlovian.py', 'full'))
    """
    path, _, preset = spec.partition(":")
    return path or f"configs/{name}.py", preset or None


def load_module(path: str) -> ModuleType:
    """The module of a config: a file, or one of the package `configs`, by name or by path.

    Raises:
        UsageError: there is none, it cannot be loaded, or it is no config.
    """
    name = re.sub(r"^configs[/.]|\.py$", "", path)
    try:
        if Path(path).is_file():
            spec = importlib.util.spec_from_file_location(f"config_{Path(path).stem}", path)
            if spec is None or spec.loader is None:
                raise UsageError(f"--config: {path!r} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        elif name.isidentifier() and importlib.util.find_spec(f"configs.{name}"):
            module = importlib.import_module(f"configs.{name}")
        else:
            raise UsageError(
                f"--config: expected a file or the name of an experiment, and there is no {path!r}"
                f"{near(name, names())}"
            )
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"--config: {path} cannot be loaded ({reason})") from error
    for needed in ("get_config", "PRESETS"):
        if not hasattr(module, needed):
            raise UsageError(f"--config: {path} is no config: it has no {needed}")
    return module


def names() -> list[str]:
    """The configs that are installed."""
    spec = importlib.util.find_spec("configs")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    found = (path.stem for folder in folders for path in Path(folder).glob("*.py"))
    return sorted(name for name in found if name != "__init__")


def load(module: ModuleType, path: str, preset: str | None) -> ml_collections.ConfigDict:
    """The config of a preset, by default the module's first choice.

    Raises:
        UsageError: no such preset.
    """
    if preset is None:
        return module.get_config()
    if preset not in module.PRESETS:
        raise UsageError(
            f"--config: {path} has no preset {preset!r}; it has {', '.join(module.PRESETS)}"
        )
    return module.get_config(preset)


def override(
    module: ModuleType, path: str, preset: str | None, flags_given: Sequence[str]
) -> ml_collections.ConfigDict:
    """The config of a preset with `--config.FIELD=VALUE` flags; each is checked.

    Raises:
        UsageError: no such preset or field, or a value that cannot be used: a line that names the
            flag, what was expected and what came.
    """
    config = load(module, path, preset)
    check_flags(config, flags_given)
    before = leaves(config.to_dict())
    values = flags.FlagValues()  # a fresh set: nothing is left behind for another call
    argv = ["", *flags_given]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        extra = values(argv)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UsageError(text.replace("flag --", "--", 1) + "; see --help") from None
    if extra:
        raise UsageError(f"unexpected argument {extra[0]!r}; see --help")
    check_values(before, leaves(values.config.to_dict()), getattr(module, "MAY_BE_ZERO", ()))
    return values.config


def presets_text(module: ModuleType) -> str:
    """What a config's docstring says of its presets and their times, or just their names."""
    text = inspect.cleandoc(module.__doc__ or "")
    found = re.search(r"^Presets.*?(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return found[0] if found else "Presets: " + ", ".join(module.PRESETS)


def former_fields(name: str) -> tuple[str, ...]:
    """The fields that the config of an experiment had in earlier versions: its `FORMER`, if any."""
    return getattr(_packaged(name), "FORMER", ())


def scale(name: str, config: Mapping[str, Any], other_studies: Iterable[str] = ()) -> str:
    """How the sizes of a run compare with those of preset `paper`, or the module's `SCALE`.

    Args:
        name: the experiment's name.
        config: its settings, nested dicts.
        other_studies: fields named like these are left out.
    """
    module = _packaged(name)
    if module is None:
        return ""
    paper = module.get_config(PAPER).to_dict() if PAPER in module.PRESETS else None
    return getattr(module, "SCALE", "") or scale_of(config, paper, other_studies)


def _packaged(name: str) -> ModuleType | None:
    return importlib.import_module(f"configs.{name}") if name in names() else None


def check_built(name: str, settings: Mapping[str, Any]) -> None:
    """Refuses values in a config that was built in code, as `override` does those of flags.

    What is checked are the fields that the config of the experiment `name` has, if there is one.

    Args:
        name: the experiment's name.
        settings: the config as nested dicts.

    Raises:
        UsageError: a line that names the field, what was expected and what came.
    """
    module = _packaged(name)
    if module is not None:
        before, after = leaves(module.get_config().to_dict()), leaves(settings)
        known = {field: after[field] for field in before if field in after}
        check_values(before, known, getattr(module, "MAY_BE_ZERO", ()), prefix="config.")
