"""Plans a run: compiles an experiment's programs for a described TPU pod, without any TPU.

    python -m experiments.aot --config=configs/in_context_regression.py:paper --topology=v5e:16x16

Prints what each program needs of every chip: its memory against the chip's; the least time of a
step, if everything reached its peak, and what binds it (compute, memory, the interconnect, or the
network between slices); the bound that puts on the use of the chip's FLOPs (MFU); its collectives,
and which of them cross slices; and what all steps of the preset take at least, in chip-hours and,
where --prices has a price, in dollars. It ends with the command that starts the run.

With --cycles, also the estimated cycles (static) of each Pallas kernel, all programs together.
Nothing is run, so a study whose next program depends on results stops there, and so does one that
computes for long, by itself, without a program; then the next is planned. Fields of the config are
set as for the experiment itself: --config.batch_size=512. Needs libtpu: pip install 'jattn[tpu]'.
Exit status 0 if everything fits, 2 if not.
"""

import importlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.tools.libtpu import SETTINGS, run_estimating

os.environ.update(SETTINGS | os.environ)  # Before jax is imported.

import jax
from jax.experimental import topologies

from experiments.flags import Parser, count, words
from experiments.tools.chips import CHIPS, PRICES, Times, check_topology, price, roofline
from jattn.training import Parallel, Run, UsageError, configs
from jattn.training.planning import Enough, Planner, Program

GIB = 2**30
KERNELS = ("attend_", "recur_", "decode")
# What another pod may mend.
OTHERWISE = ("divides over the data axis", "does not fit")
BETWEEN = 60  # seconds that a study may take without a program


def plan(
    name: str,
    config: Any,
    topology: str,
    strategy: str,
    most: int,
    slices: int = 1,
    seconds: float = math.inf,
) -> tuple[Planner, bool]:
    """Compiles the first programs of the experiment `experiments.NAME` for a topology.

    Returns:
        The planner with its programs, and whether they are all that the experiment has.

    Raises:
        UsageError: libtpu is missing, there is no such topology or experiment, or a program does
            not fit the chip.
    """
    try:
        module = importlib.import_module(f"experiments.{name}")
    except ModuleNotFoundError:
        raise UsageError(f"config: there is no experiment {name!r}") from None
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError("libtpu is missing: pip install 'jattn[tpu]'")
    several = {"num_slices": slices} if slices > 1 else {}
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **several)
    except Exception as error:
        reason = str(error).splitlines()[0][:120]
        raise UsageError(f"topology: {topology!r} cannot be had: {reason}") from None
    told = lambda text: print(text, file=sys.stderr, flush=True)
    planner = Planner(described.devices, most, slices, told, seconds, BETWEEN)
    whole = False
    mesh = dict(config.parallel.mesh)
    parallel = Parallel(strategy=strategy, mesh=mesh, planner=planner)
    with (
        tempfile.TemporaryDirectory() as folder,
        Run.open(folder, config, name=name, parallel=parallel) as run,
    ):
        try:
            module.run_experiment(config, run)
            whole = True
        except Enough:
            pass
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = str(error).splitlines()[0][:160]
            raise UsageError(f"a program does not fit {topology}: {reason}") from None
    return planner, whole and not planner.left


def first_plan(
    name: str, config: Any, several: Sequence[str], *asked: Any
) -> tuple[str, Planner, bool]:
    """The first of several topologies that has room and shares the work, and `plan` for it.

    Args:
        name, config: as for `plan`.
        several: topologies.
        *asked: as for `plan`, what comes behind the topology.

    Raises:
        UsageError: what is wrong with the last one, or what another would not mend.
    """
    for topology in several[:-1]:
        try:
            return topology, *plan(name, config, topology, *asked)
        except UsageError as error:
            if not any(part in str(error) for part in OTHERWISE):
                raise
            print(f"{topology}: {error}", file=sys.stderr)
    return several[-1], *plan(name, config, several[-1], *asked)


def totals(programs: list[Program], whole: bool, topology: str, slices: int) -> dict[str, Any]:
    """What all steps of some programs take at least.

    Returns:
        `fits`, `gib` of a chip at most and `share` of its memory, `hours` by the clock,
        `chip_hours`, `mfu` at most, `binds` (what does for most of the time), `collectives` of one
        step of each (None if not known), `programs`, and `whole`, whether they are all there are.
    """
    name, grid = check_topology(topology)
    chip = CHIPS[name]
    chips = math.prod(grid) * slices
    times = [roofline(program, chip) for program in programs]
    seconds = dict.fromkeys(Times._fields, 0.0)
    for program, time in zip(programs, times, strict=True):
        seconds[time.binds] += time.step * program.steps
    hours = sum(seconds.values()) / 3600
    busy = sum(t.compute * p.steps for p, t in zip(programs, times, strict=True)) / 3600
    used = max(p.arguments + p.outputs + p.temporaries for p in programs)
    lists = [p.collectives for p in programs]
    return {
        "fits": used <= chip.memory * GIB,
        "gib": used / GIB,
        "share": used / GIB / chip.memory,
        "chips": chips,
        "hours": hours,
        "chip_hours": hours * chips,
        "mfu": busy / hours if hours else 0.0,
        "binds": max(seconds, key=lambda name: seconds[name]),
        "collectives": None if None in lists else sum(c.count for one in lists for c in one or ()),
        "programs": len(programs),
        "whole": whole,
        "seconds": sum(p.seconds for p in programs),
    }


def report(programs: list[Program], whole: bool, topology: str, slices: int, prices: Path) -> bool:
    """Prints the plan; returns whether everything fits."""
    name = topology.split(":")[0]
    chip = CHIPS[name]
    print(
        f"{'program':30} {'GiB a chip':>10} {'of HBM':>7} {'step, ms':>9} {'bound by':12} "
        f"{'MFU <=':>6} {'steps':>9}"
    )
    for p in programs:
        used = (p.arguments + p.outputs + p.temporaries) / GIB
        time = roofline(p, chip)
        print(
            f"{p.name[:30]:30} {used:10.3g} {used / chip.memory:7.1%} {1e3 * time.step:9.3g} "
            f"{time.binds:12} {time.compute / max(time.step, 1e-30):6.1%} {p.steps:9,}"
        )
        parts = {"arguments": p.arguments, "outputs": p.outputs, "temporary": p.temporaries}
        print("    " + ", ".join(f"{k} {_size(v)}" for k, v in parts.items()), end="")
        moves = "memory not known" if p.bytes is None else f"{_size(p.bytes)} moved"
        print(f"; {p.flops:.3g} FLOP and {moves} a step and chip")
        if p.collectives is None:
            print("    collectives unknown: libtpu cannot print this program")
        for c in p.collectives or ():
            over = f"{c.group} slices" if c.crosses else f"{c.group} chips"
            print(f"    {c.count} x {c.kind} over {over}, {_size(c.bytes)}")
    found = totals(programs, whole, topology, slices)
    part = "" if whole else f", of these {len(programs)} programs"
    print(
        f"in all{part}: at least {found['chip_hours']:.3g} chip-hours, {found['hours']:.3g} hours "
        f"of {found['chips']} chips"
    )
    usd, entry = price(name, prices)
    if usd is None:
        print(f"cost: no price of {name} in {prices}; put the one you pay there")
    else:
        least = f"${usd * found['chip_hours']:,.2f}"
        source = f"{entry.get('source')}, {entry.get('date')}"
        print(f"cost: at least {least}, at ${usd:g} a chip-hour ({source})")
    return found["fits"]


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
    rest = [argument for argument in arguments if argument != "--cycles"]
    command = [sys.executable, "-m", "experiments.aot", *rest]
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


def main() -> None:
    """The command line; see the module's docstring."""
    parser = Parser("aot", __doc__)
    parser.add_argument("--config", required=True, help="the experiment: FILE or NAME[:PRESET]")
    parser.add_argument(
        "--topology",
        type=words,
        required=True,
        help="chip and grid: v5e:16x16, v5p:2x2x4; of several the first that has room for it",
    )
    parser.add_argument("--slices", type=count, default=1, help="how many of these, in one run")
    parser.add_argument("--strategy", default="jit", choices=("jit", "shard_map"))
    parser.add_argument("--programs", type=count, default=3, help="programs to compile at most")
    parser.add_argument(
        "--seconds", type=count, default=10**9, help="after which no further program is compiled"
    )
    parser.add_argument("--prices", type=Path, default=PRICES, help="a table of prices, JSON")
    parser.add_argument("--cycles", action="store_true", help="estimate cycles of kernels: slower")
    parser.add_argument("--json", action="store_true", help="print the totals as one line of JSON")
    chosen, overrides = parser.parse_known_args()
    try:
        path, preset = configs.split(chosen.config, "")
        config = configs.override(configs.load_module(path), path, preset, overrides)
        for topology in chosen.topology or [""]:
            check_topology(topology)
            price(topology.split(":")[0], chosen.prices)
        if chosen.cycles:
            sys.exit(with_cycles(sys.argv[1:]))
        name, slices = Path(path).stem, chosen.slices
        asked = (chosen.strategy, chosen.programs, slices, chosen.seconds)
        topology, planner, whole = first_plan(name, config, chosen.topology, *asked)
        programs = planner.programs
        if not programs:
            why = "".join(f"; study {study} {why}" for study, why in planner.left.items())
            raise UsageError(f"config: {name} has no program that could be planned{why}")
        fits = report(programs, whole, topology, slices, chosen.prices)
        several = f" --slices={slices}" if slices > 1 else ""
        print(
            f"launch: python -m experiments.launch --experiment={name} --config={chosen.config} "
            f"--topology={topology}{several} --target=gke --workdir=gs://BUCKET/{name}"
        )
        if chosen.json:
            found = totals(programs, whole, topology, slices)
            print(json.dumps({"topology": topology, **found, "left": list(planner.left)}))
    except UsageError as error:
        print(f"aot: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    if not fits:
        print(f"aot: it does not fit the memory of {topology}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
