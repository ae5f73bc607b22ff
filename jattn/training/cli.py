"""The command line every experiment shares: flags in, a workdir, claims and an exit status out.

An experiment module ends in

    if __name__ == "__main__":
        cli.main(run_experiment, name="in_context_regression")

and its config module gives `get_config(preset="small")` and `PRESETS`, the presets' names.
"""

import contextlib
import errno
import importlib.util
import inspect
import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import NoReturn

import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from jattn.training.claims import Claim, print_claims
from jattn.training.errors import Interrupted, NonFiniteError, UsageError
from jattn.training.parallel import keep_cpu_products_apart, split_cpu, start_distributed
from jattn.training.report import write_report
from jattn.training.run import Run, leaves, write_atomically

HOLDS, BAD_INPUT, FAILS, NOT_FINITE = 0, 2, 3, 4

RunExperiment = Callable[[ml_collections.ConfigDict, Run], list[Claim]]


def main(
    run_experiment: RunExperiment, *, name: str, argv: Sequence[str] | None = None
) -> NoReturn:
    """Runs an experiment from the command line, and exits.

    Args:
        run_experiment: `(config, run) -> claims`.
        name: the experiment's name; its config is by default `configs/NAME.py`.
        argv: the command line, the program first; by default `sys.argv`.

    Raises:
        SystemExit: always. 0: all claims hold, or the run was asked to stop and can go on;
            2: bad input; 3: a claim does not hold; 4: a loss was not finite.
    """
    arguments = list(sys.argv if argv is None else argv)
    try:
        status = _execute(run_experiment, name, arguments)
    except Interrupted:
        print(f"stopped, and saved; go on with: {_command(arguments)}", flush=True)
        status = HOLDS
    except NonFiniteError as error:
        status = _complain(name, f"{error}; what was saved before it is kept", NOT_FINITE)
    except UsageError as error:
        status = _complain(name, str(error), BAD_INPUT)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"no space left on the disk ({error.filename or 'workdir'}); what was saved before "
        status = _complain(name, text + "is intact. Free some and run it again", BAD_INPUT)
    sys.exit(status)


def _execute(run_experiment: RunExperiment, name: str, argv: list[str]) -> int:
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(_help(run_experiment, name, argv))
        return HOLDS
    values = _parse(name, argv)
    if values.distributed:
        start_distributed(
            coordinator_address=values.coordinator_address,
            num_processes=values.num_processes,
            process_id=values.process_id,
        )
    keep_cpu_products_apart()
    split_cpu(values.config.get("parallel", {}).get("cpu_devices", 1))
    # Orbax logs a traceback of each error and then raises it; one of the two is enough.
    logging.set_verbosity(logging.FATAL)
    with Run.open(values.workdir, values.config, name=name) as run, _stopping(run):
        claims = run_experiment(values.config, run)
        if run.writes:
            entries = [claim.entry() for claim in claims]
            write_atomically(
                run.workdir / "claims.json", (json.dumps(entries, indent=2) + "\n").encode()
            )
            report = write_report(run, claims, _description(run_experiment))
            print_claims(claims)
            print(f"report:  {report}\nclaims:  {run.workdir / 'claims.json'}")
    return HOLDS if all(claim.holds for claim in claims) else FAILS


def _parse(name: str, argv: list[str]) -> flags.FlagValues:
    path, preset, rest = _split_config(name, argv)
    config = _load_config(path, preset)
    # A fresh set of flags: nothing is left behind for another call in the same process.
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_bool("distributed", False, "Join other processes.", flag_values=values)
    flags.DEFINE_string("coordinator_address", None, "HOST:PORT.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "How many.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Which one this is.", flag_values=values)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
        extra = values(rest)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(_what_is_wrong(config, rest, error)) from None
    if extra:
        raise UsageError(f"unexpected argument {extra[0]!r}; see --help")
    if not values.workdir:
        raise UsageError("--workdir: missing; say where to write, e.g. --workdir=runs/" + name)
    return values


def _what_is_wrong(config: ml_collections.ConfigDict, argv: list[str], error: Exception) -> str:
    known = leaves(config.to_dict())
    for argument in argv[1:]:
        field = argument.lstrip("-").partition("=")[0]
        if field.startswith("config.") and field.removeprefix("config.") not in known:
            return f"--{field}: the config has no such field; it has {', '.join(known)}"
    return " ".join(str(error).split())


def _split_config(name: str, argv: list[str]) -> tuple[str, str | None, list[str]]:
    """Takes `--config=PATH[:PRESET]` out of the arguments."""
    chosen, rest, arguments = f"configs/{name}.py", [], iter(argv)
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            rest.append(argument)
            continue
        chosen = value if equals else next(arguments, "")
    path, _, preset = chosen.partition(":")
    return path, preset or None, rest


def _load_config(path: str, preset: str | None) -> ml_collections.ConfigDict:
    module = _load_module(path)
    if preset is None:
        return module.get_config()
    if preset not in module.PRESETS:
        raise UsageError(
            f"--config: {path} has no preset {preset!r}; it has {', '.join(module.PRESETS)}"
        )
    return module.get_config(preset)


def _load_module(path: str) -> ModuleType:
    if not Path(path).is_file():
        raise UsageError(f"--config: there is no file {path!r}")
    spec = importlib.util.spec_from_file_location(f"config_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--config: {path!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"--config: {path} cannot be loaded ({reason})") from error
    for needed in ("get_config", "PRESETS"):
        if not hasattr(module, needed):
            raise UsageError(f"--config: {path} has no {needed}")
    return module


@contextlib.contextmanager
def _stopping(run: Run) -> Iterator[None]:
    """While it lasts, the first SIGTERM or SIGINT asks the run to save and stop."""
    kinds = (signal.SIGTERM, signal.SIGINT)

    def ask(number: int, _: FrameType | None) -> None:
        run.interrupted = True
        for kind in kinds:  # a second signal is not to be kept waiting
            signal.signal(kind, before[kind])

    before = {kind: signal.signal(kind, ask) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _complain(name: str, text: str, status: int) -> int:
    print(f"{name}: {text}", file=sys.stderr, flush=True)
    return status


def _command(argv: list[str]) -> str:
    """The command line that started this process, to be pasted into a shell."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return shlex.join([sys.executable, *argv])
    module = spec.name.removesuffix(".__main__")
    return shlex.join([sys.executable, "-m", module, *argv[1:]])


def _description(run_experiment: RunExperiment) -> str:
    module_text = getattr(run_experiment, "__globals__", {}).get("__doc__")
    return inspect.cleandoc(module_text or run_experiment.__doc__ or "")


def _help(run_experiment: RunExperiment, name: str, argv: list[str]) -> str:
    path, _, _ = _split_config(name, argv)
    presets = ", ".join(_load_module(path).PRESETS) if Path(path).is_file() else "small"
    start = f"python -m experiments.{name}"
    return f"""{_description(run_experiment)}

Usage: {start} --config={path}[:PRESET] --workdir=DIR [--config.FIELD=VALUE ...]

  --config                 config file, and a preset of it ({presets}); default {path}
  --config.FIELD=VALUE     override a field of the config
  --workdir                where to write; the same folder again goes on where it stopped
  --distributed            one of many processes; on TPU pods nothing else is needed, elsewhere
                           --coordinator_address=HOST:PORT --num_processes=N --process_id=I

Examples:
  {start} --workdir=runs/{name}
  {start} --config={path}:full --workdir=runs/{name}_full
  {start} --workdir=runs/{name}_pmap --config.parallel.strategy=pmap

Writes config.json, metrics.jsonl, TensorBoard events, checkpoints/, figures/, claims.json and
report.html. Exit status: 0 all claims hold (or stopped by a signal, and saved), 2 bad input,
3 a claim does not hold, 4 a loss was not finite."""
