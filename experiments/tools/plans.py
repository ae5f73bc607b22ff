"""Plans the paper preset of every registered experiment, and writes the table into docs/pods.md.

    python -m experiments.tools.plans --topologies=v5e:16x16,v5e:8x8,v5e:4x4 --seconds=60

Each is planned by `experiments.aot` in a process of its own, which needs libtpu, for the first of
the topologies that it fits, and that its batch or its seeds divide over; after --seconds no further
program of it is compiled, and the table says how many were. With --only, the other lines stay as
they are. A row says in words why nothing could be planned, and which studies were left: those whose
programs depend on results, or that compute for long without one.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from experiments.flags import Parser, count, some_of, words
from experiments.reproduce import REGISTERED
from experiments.tools.chips import check_topology
from experiments.tools.libtpu import environment
from jattn.training import UsageError, configs

PAGE = Path(__file__).parents[2] / "docs" / "pods.md"
BEGIN, END = "<!-- plans: begin -->", "<!-- plans: end -->"
HEAD = (
    "| experiment | pod | programs | GiB a chip | bound by | MFU | collectives | chip-hours |"
    "\n|---|---|---|---|---|---|---|---|"
)


def planned(name: str, topologies: Sequence[str], seconds: int, limit: int) -> str:
    """The line of one experiment.

    Args:
        name: of the experiment.
        topologies: to try, one after the other.
        seconds: after which no further program is compiled.
        limit: seconds after which a plan is given up, should a single program take that long.
    """
    if "paper" not in configs.load_module(f"configs/{name}.py").PRESETS:
        return f"| {name} | | none: it has no preset `paper` | | | | | |"
    command = [sys.executable, "-m", "experiments.aot", f"--config={name}:paper"]
    command += [f"--topology={','.join(topologies)}", "--programs=100"]
    command += [f"--seconds={seconds}", "--json"]
    try:
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return f"| {name} | | none in {limit} s | | | | | |"
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not found:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        why = said[-1].removeprefix("aot: ")
        return f"| {name} | | none: {why[:120]} | | | | | |"
    return line_of(name, json.loads(found[-1]))


def line_of(name: str, plan: dict[str, Any]) -> str:
    """A line of the table from what `experiments.aot --json` gives."""
    programs = f"all {plan['programs']}" if plan["whole"] else f"first {plan['programs']}"
    if plan["left"]:
        programs = f"{plan['programs']}, without {', '.join(plan['left'])}"
    collectives = "not known" if plan["collectives"] is None else str(plan["collectives"])
    return (
        f"| {name} | {plan['topology']} | {programs} | {plan['gib']:.3g} ({plan['share']:.0%}) | "
        f"{plan['binds']} | {plan['mfu']:.1%} | {collectives} | {plan['chip_hours']:.2g} |"
    )


def write(lines: dict[str, str], page: Path = PAGE) -> None:
    """Puts lines into the page's table; those of other experiments stay."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = {m[1]: m[0] for m in re.finditer(r"^\| (\w+) \|.*$", table, re.MULTILINE)}
    kept |= lines
    body = "\n".join(kept[name] for name in REGISTERED if name in kept)
    page.write_text(f"{before}{BEGIN}\n{HEAD}\n{body}\n{END}{after}")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; see the module's docstring."""
    parser = Parser("tools.plans", __doc__)
    default = ["v5e:16x16", "v5e:8x8", "v5p:4x4x4", "v5e:4x4", "v5e:2x2", "v5e:1x1"]
    parser.add_argument(
        "--topologies", type=words, default=default, help="chips and grids, falling"
    )
    parser.add_argument("--seconds", type=count, default=60, help="for each experiment")
    parser.add_argument("--limit", type=count, default=900, help="seconds for a program")
    parser.add_argument(
        "--only",
        type=some_of("experiment", REGISTERED),
        default=list(REGISTERED),
        help="default: all",
    )
    chosen = parser.parse_args(argv)
    try:
        for topology in chosen.topologies:
            check_topology(topology)
    except UsageError as error:
        parser.error(str(error))
    for number, name in enumerate(chosen.only, 1):
        line = planned(name, chosen.topologies, chosen.seconds, chosen.limit)
        print(f"{number}/{len(chosen.only)} {line}", flush=True)
        write({name: line})
    sys.exit(0)


if __name__ == "__main__":
    main()
