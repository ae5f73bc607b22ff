"""The command line every experiment shares: flags in, a workdir, claims and an exit status out.

An experiment module ends in

    if __name__ == "__main__":
        cli.main(run_experiment, name="in_context_regression")

and its config module gives `get_config(preset="small")` and `PRESETS`, the presets' names.
"""

import contextlib
import errno
import inspect
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import jax
import ml_collections
from absl import flags, logging

from jattn.training import configs, supervisor
from jattn.training.claims import Claim, print_claims, summary
from jattn.training.config_checks import leaves
from jattn.training.cpu import split_cpu
from jattn.training.errors import Interrupted, NonFiniteError, UsageError
from jattn.training.files import write_atomically
from jattn.training.parallel import start_distributed
from jattn.training.report import write_report
from jattn.training.run import Run
from jattn.training.stores import folder_of, told
from jattn.training.studies import completed

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
        SystemExit: always. 0: all claims hold; 2: bad input; 3: a claim does not hold; 4: a loss
            was not finite; 5: another process was lost; 130 or 143: stopped by SIGINT or SIGTERM,
            and saved.
    """
    arguments = list(sys.argv if argv is None else argv)
    stopped_by: list[int] = []
    try:
        timeout = _peers(name, arguments) if argv is None else None
        if timeout is not None and not supervisor.is_child():
            sys.exit(supervisor.supervise(_command(arguments), name, timeout))
        status = _execute(run_experiment, name, arguments, stopped_by)
    except Interrupted:
        print(f"stopped, and saved; go on with: {shlex.join(_command(arguments))}", flush=True)
        # Without a signal of its own, a process stops with those it works with.
        status = 128 + (stopped_by or [signal.SIGTERM])[0]
    except KeyboardInterrupt:
        text = f"stopped at once; go on from what was saved with: {shlex.join(_command(arguments))}"
        status = _complain(name, text, 128 + signal.SIGINT)
    except NonFiniteError as error:
        status = _complain(name, f"{error}; what was saved before it is kept", NOT_FINITE)
    except UsageError as error:
        status = _complain(name, str(error), BAD_INPUT)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            text = f"out of memory ({reason}); what was saved before is kept. Use smaller sizes"
            status = _complain(name, text, BAD_INPUT)
        elif jax.process_count() > 1 and any(word in str(error) for word in supervisor.OF_PEERS):
            print(supervisor.lost(name, f"another process is gone ({reason})"), file=sys.stderr)
            status = supervisor.LOST
        else:
            raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"no space left on the disk ({error.filename or 'workdir'}); what was saved before "
        status = _complain(name, text + "is intact. Free some and run it again", BAD_INPUT)
    if supervisor.is_child() and status not in (HOLDS, FAILS):
        # A process that ends early is not kept waiting for the others, as jax would do at exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _execute(
    run_experiment: RunExperiment, name: str, argv: list[str], stopped_by: list[int]
) -> int:
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(_help(run_experiment, name, argv))
        return HOLDS
    values, config = _parse(name, argv)
    if values.distributed:
        supervisor.join_parent()
        start_distributed(
            timeout=values.peer_timeout,
            coordinator_address=values.coordinator_address,
            num_processes=values.num_processes,
            process_id=values.process_id,
        )
        supervisor.sign_of_life(supervisor.JOINED)
    parallel: Any = config.get("parallel", {})
    split_cpu(parallel.get("cpu_devices", 1))
    # Orbax logs a traceback of each error and then raises it; one of the two is enough.
    logging.set_verbosity(logging.FATAL)
    workdir = folder_of(values.workdir)
    with (
        told(workdir),
        Run.open(workdir, config, name=name, command=shlex.join(_command(argv))) as run,
        _stopping(run, stopped_by),
    ):
        run.profile_steps = values.profile
        claims = completed(run, run_experiment(config, run), list(run.figures))
        if run.provenance is not None:  # this process writes
            run.provenance.close(run.goodput.shares(), run.flops)
            report = write_report(run, claims, _description(run_experiment))
            entries = [claim.entry() for claim in claims]
            write_atomically(
                run.workdir / "claims.json", (json.dumps(entries, indent=2) + "\n").encode()
            )
            print_claims(claims)
            print(f"report:  {report}\nclaims:  {run.workdir / 'claims.json'}")
            print(run.goodput)
            print(summary(claims))
    return HOLDS if all(claim.holds for claim in claims) else FAILS


def _parse(name: str, argv: list[str]) -> tuple[flags.FlagValues, ml_collections.ConfigDict]:
    path, preset, rest = _split_config(name, argv)
    module = configs.load_module(path)
    is_field = lambda argument: argument.lstrip("-").startswith("config.")
    fields = [argument for argument in rest[1:] if is_field(argument)]
    config = configs.override(module, path, preset, fields)
    # A fresh set of flags: nothing is left behind for another call in the same process.
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_integer("profile", 0, "Steps to profile.", 0, flag_values=values)
    flags.DEFINE_integer("peer_timeout", 900, "Seconds.", 1, flag_values=values)
    flags.DEFINE_bool("distributed", False, "Join other processes.", flag_values=values)
    flags.DEFINE_string("coordinator_address", None, "HOST:PORT.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "How many.", 1, flag_values=values)
    flags.DEFINE_integer("process_id", None, "Which one this is.", 0, flag_values=values)
    try:
        extra = values([a for a in rest if a not in fields])[1:]
    except flags.Error as error:
        text = " ".join(str(error).split())
        raise UsageError(text.replace("flag --", "--", 1) + "; see --help") from None
    if extra:
        raise UsageError(f"unexpected argument {extra[0]!r}; see --help")
    if not values.workdir:
        raise UsageError("--workdir: missing; say where to write, e.g. --workdir=runs/" + name)
    _check_processes(values)
    return values, config


def _check_processes(values: flags.FlagValues) -> None:
    """Refuses flags that would start runs that know nothing of each other."""
    joint = ("coordinator_address", "num_processes", "process_id")
    given = [flag for flag in joint if values[flag].value is not None]
    if given and not values.distributed:
        raise UsageError(
            f"--{given[0]}: expected --distributed beside it; without, each process is a run of "
            "its own"
        )
    missing = [flag for flag in joint if flag not in given]
    if given and missing:
        raise UsageError(f"--{missing[0]}: missing; --{given[0]} needs all of {', '.join(joint)}")
    if given and not 0 <= values.process_id < values.num_processes:
        raise UsageError(
            f"--process_id: expected from 0 to {values.num_processes - 1}, as "
            f"--num_processes={values.num_processes}; got {values.process_id}"
        )


def _split_config(name: str, argv: list[str]) -> tuple[str, str | None, list[str]]:
    """Takes `--config=PATH[:PRESET]` out of the arguments."""
    chosen, rest, arguments = "", [], iter(argv)
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            rest.append(argument)
            continue
        chosen = value if equals else next(arguments, "")
    return *configs.split(chosen, name), rest


@contextlib.contextmanager
def _stopping(run: Run, stopped_by: list[int]) -> Iterator[None]:
    """While it lasts, the first SIGTERM or SIGINT asks the run to save and stop."""
    kinds = (signal.SIGTERM, signal.SIGINT)

    def ask(number: int, _: FrameType | None) -> None:
        run.interrupted = True
        stopped_by.append(number)
        text = f"{signal.Signals(number).name}: saving and stopping; again, to stop at once\n"
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), text.encode())  # print may be what was interrupted
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


def _peers(name: str, argv: list[str]) -> float | None:
    """Seconds to wait for other processes, where this is to be one of several; else None."""
    asked = any(argument.lstrip("-").startswith("distributed") for argument in argv[1:])
    if not asked or {"--help", "-help", "-h"} & set(argv[1:]):
        return None
    values, _ = _parse(name, argv)
    return values.peer_timeout if values.distributed else None


def _command(argv: list[str]) -> list[str]:
    """The command line that started this process."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return [sys.executable, *argv]
    module = spec.name.removesuffix(".__main__")
    return [sys.executable, "-m", module, *argv[1:]]


def _description(run_experiment: RunExperiment) -> str:
    module_text = getattr(run_experiment, "__globals__", {}).get("__doc__")
    return inspect.cleandoc(module_text or run_experiment.__doc__ or "")


def _help(run_experiment: RunExperiment, name: str, argv: list[str]) -> str:
    path, preset, _ = _split_config(name, argv)
    module = configs.load_module(path)
    fields = leaves(configs.load(module, path, preset).to_dict())
    shown = "\n".join(f"  --config.{field}={value!r}" for field, value in fields.items())
    start = f"python -m experiments.{name}"
    studies = ", ".join(getattr(run_experiment, "__globals__", {}).get("STUDIES", ()))
    listed = f"\nStudies (--config.study): {studies}\n" if studies else ""
    return f"""{_description(run_experiment)}

Usage: {start} [--config={path}[:PRESET]] --workdir=DIR [--config.FIELD=VALUE ...]

  --config                 config file or name, and a preset of it
  --config.FIELD=VALUE     override a field of the config
  --workdir                where to write, a folder, gs://BUCKET/RUN or s3://BUCKET/RUN; the same
                           again goes on where it stopped
  --distributed            one of many processes; on TPU pods nothing else is needed, elsewhere
                           --coordinator_address=HOST:PORT --num_processes=N --process_id=I
  --peer_timeout=900       seconds to wait for other processes, to come or to get on
  --profile=STEPS          writes a trace of so many steps to DIR/profile, for xprof

{configs.presets_text(module)}
{listed}
Fields and their values in preset {preset or module.PRESETS[0]}:
{shown}

Examples:
  {start} --workdir=runs/{name}
  {start} --config={path}:{module.PRESETS[min(1, len(module.PRESETS) - 1)]} --workdir=runs/{name}_2
  {start} --workdir=runs/{name}_pmap --config.parallel.strategy=pmap

Writes config.json, metrics.jsonl, TensorBoard events, checkpoints/, figures/, claims.json,
timings.jsonl, provenance.json and report.html; started again with other devices
(--config.parallel), it goes on on those. Exit status: 0 all claims hold, 2 bad input, 3 a claim
does not hold, 4 a loss was not finite, 5 another process is gone or hangs, 130 or 143 stopped by
SIGINT or SIGTERM, and saved."""
