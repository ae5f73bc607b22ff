"""Compiles an experiment's programs for a described TPU pod, on a machine without any TPU.

    python -m experiments.aot --config=configs/in_context_regression.py:paper --topology=v5e:16x16

Prints what each program needs of every chip: bytes of arguments (parameters and the optimizer's
state among them), outputs and temporaries, against the chip's memory; FLOPs; collectives; and the
estimated cycles (static) of each Pallas kernel, all programs together (--nocycles leaves those
out, and compiles faster). Nothing is run, so an experiment whose next program depends on results
stops there. Fields of the config are set as for the experiment itself: --config.batch_size=512.
Needs libtpu: pip install 'jattn[tpu]'. Exit status 0 if everything fits, 2 if not.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments.libtpu import SETTINGS, run_estimating

os.environ.update(SETTINGS | os.environ)  # Before jax is imported.

from absl import app, flags
from jax.experimental import topologies
from ml_collections import config_flags

from jattn.training import Parallel, Run, UsageError
from jattn.training.planning import Enough, Planner, Program

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment's config, FILE[:preset].")
TOPOLOGY = flags.DEFINE_string("topology", None, "Chip and grid, e.g. v5e:16x16 or v5p:2x2x4.")
STRATEGY = flags.DEFINE_enum("strategy", "jit", ("jit", "shard_map"), "parallel.strategy.")
PROGRAMS = flags.DEFINE_integer("programs", 3, "Programs to compile at most.")
ESTIMATE = flags.DEFINE_bool("cycles", True, "Estimate cycles of kernels; compiles longer.")
flags.mark_flags_as_required(["config", "topology"])

GIB = 2**30
KERNELS = ("attend_", "recur_", "decode")
# Memory of a chip, GiB (of a device, where a chip shows as two).
MEMORY = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32, "tpu7x": 96}


def plan(name: str, config, topology: str, strategy: str, most: int) -> list[Program]:
    """Compiles the first programs of the experiment `experiments.NAME` for a topology.

    Raises:
        UsageError: libtpu is missing, there is no such topology or experiment, or a program does
            not fit the chip.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError("libtpu is missing: pip install 'jattn[tpu]'")
    try:
        module = importlib.import_module(f"experiments.{name}")
    except ModuleNotFoundError:
        raise UsageError(f"config: there is no experiment {name!r}") from None
    if topology.split(":")[0] not in MEMORY:
        known = ", ".join(MEMORY)
        raise UsageError(f"topology: expected a chip of {known} and a grid, got {topology!r}")
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:
        reason = str(error).splitlines()[0][:120]
        raise UsageError(f"topology: {topology!r} cannot be had: {reason}") from None
    planner = Planner(described.devices, most)
    mesh = dict(config.parallel.mesh)
    parallel = Parallel(strategy=strategy, mesh=mesh, planner=planner)
    with (
        tempfile.TemporaryDirectory() as folder,
        Run.open(folder, config, name=name, parallel=parallel) as run,
    ):
        try:
            module.run_experiment(config, run)
        except Enough:
            pass
        except UsageError:
            raise
        except Exception as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                reason = str(error).splitlines()[0][:160]
                raise UsageError(f"a program does not fit {topology}: {reason}") from None
            if not planner.programs:
                raise
            print(f"the rest depends on results: stopped after {len(planner.programs)} programs")
    return planner.programs


def report(programs: list[Program], topology: str) -> bool:
    """Prints a table; returns whether everything fits."""
    memory = MEMORY[topology.split(":")[0]] * GIB
    fits = True
    print(
        f"{'program':32} {'arguments':>10} {'outputs':>10} {'temporary':>10} {'of memory':>9} FLOP"
    )
    for p in programs:
        used = p.arguments + p.outputs + p.temporaries
        fits &= used <= memory
        sizes = " ".join(f"{_size(n):>10}" for n in (p.arguments, p.outputs, p.temporaries))
        print(f"{p.name[:32]:32} {sizes} {used / memory:9.2%} {p.flops:.3g}")
        if p.collectives is None:
            print("    collectives unknown: libtpu cannot print this program")
        for kind, (count, size) in sorted((p.collectives or {}).items()):
            print(f"    {count} x {kind}, {_size(size)}")
    return fits


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def with_cycles(arguments: list[str]) -> int:
    """Runs the same command with libtpu's estimates on, and prints those of kernels.

    The estimator takes memory of its own, and does not know every program. Where it fails, what
    the command says without it counts, and what it had estimated until then is shown.
    """
    command = [sys.executable, "-m", "experiments.aot", *arguments, "--nocycles"]
    done, found = run_estimating(command)
    whole = done.returncode == 0
    status = done.returncode
    if status < 0 or (status > 0 and found):
        status = subprocess.run(command, check=False).returncode
    else:
        print(done.stdout, end="", flush=True)
        print(done.stderr, end="", file=sys.stderr)
    if status:
        return status
    kernels = {name: cycles for name, cycles in found.items() if name.startswith(KERNELS)}
    if kernels:
        known = "" if whole else ", where libtpu's estimator knows the program"
        print(f"estimated cycles (static){known}:")
    elif whole:
        print("no Pallas kernel in these programs")
    else:
        print("no estimated cycles: libtpu's estimator cannot read these programs")
    for kernel, cycles in sorted(kernels.items()):
        print(f"    {kernel:28} {cycles:>12,}")
    return 0


def main(_: list[str]) -> None:
    """The command line; see the module's docstring."""
    if ESTIMATE.value:
        sys.exit(with_cycles(sys.argv[1:]))
    flag = flags.FLAGS["config"]
    path = config_flags.get_config_filename(flag)
    try:
        name = Path(path.split(":")[0]).stem
        topology = str(TOPOLOGY.value)
        programs = plan(name, CONFIG.value, topology, STRATEGY.value, PROGRAMS.value)
        fits = report(programs, topology)
    except UsageError as error:
        print(f"aot: {error}", file=sys.stderr)
        sys.exit(2)
    if not fits:
        print(f"aot: it does not fit the memory of {topology}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
