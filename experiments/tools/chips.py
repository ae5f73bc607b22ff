"""TPUs in numbers, and what a planned program can at best take on them.

Numbers are those of Google's pages https://docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e and
/tpu7x: bf16 peak, memory and its bandwidth, interconnect and network of each chip.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from jattn.training import UsageError
from jattn.training.hlo import Collective
from jattn.training.planning import Program
from jattn.training.speed import PEAKS

PRICES = Path(__file__).with_name("prices.json")


class Chip(NamedTuple):
    """A device, as JAX shows it: a chip, or one of the two dies of a TPU7x.

    Attributes:
        peak: bf16 operations a second.
        memory: GiB.
        bandwidth: bytes a second, of the memory.
        interconnect: bytes a second that it sends to other chips of its slice, over all links.
        network: bytes a second that it sends to other slices.
        dimensions: of the grid of chips.
        host: chips a host of a slice of many hosts.
        machine: that host's type.
        accelerator: its name in the labels of GKE.
        devices: how many of these are one chip.
    """

    peak: float
    memory: float
    bandwidth: float
    interconnect: float
    network: float
    dimensions: int
    host: int
    machine: str
    accelerator: str
    devices: int = 1


# Interconnect: half of the bandwidth in both directions. Network: the chip's share, or the pod's
# over its chips. For v4 neither is on its page: links are those of its successor's, 50 GB/s each
# way in six directions (arXiv 2304.01433), and of the network nothing is known.
CHIPS = {
    "v4": Chip(
        PEAKS["TPU v4"], 32, 1200e9, 300e9, float("nan"), 3, 4,
        "ct4p-hightpu-4t", "tpu-v4-podslice",
    ),
    "v5e": Chip(
        PEAKS["TPU v5 lite"], 16, 819e9, 200e9, 25e9 / 8, 2, 4,
        "ct5lp-hightpu-4t", "tpu-v5-lite-podslice",
    ),
    "v5p": Chip(
        PEAKS["TPU v5"], 95, 2765e9, 600e9, 50e9 / 8, 3, 4,
        "ct5p-hightpu-4t", "tpu-v5p-slice",
    ),
    "v6e": Chip(
        PEAKS["TPU v6 lite"], 32, 1638e9, 400e9, 100e9 / 8, 2, 4,
        "ct6e-standard-4t", "tpu-v6e-slice",
    ),
    "tpu7x": Chip(
        PEAKS["TPU7x"], 96, 7380e9 / 2, 600e9 / 2, 100e9 / 8 / 2, 3, 4,
        "tpu7x-standard-4t", "tpu7x", devices=2,
    ),
}  # fmt: skip


class Times(NamedTuple):
    """The least time of one step of a program, in seconds, if one thing alone took any."""

    compute: float
    memory: float
    interconnect: float
    network: float

    @property
    def step(self) -> float:
        """The longest of them: what a step takes at least, if all goes on at once."""
        return max(time for time in self if time == time)

    @property
    def binds(self) -> str:
        """What that is: "compute", "memory", "interconnect" or "network"."""
        return max(self._fields, key=lambda name: getattr(self, name) == self.step)


def roofline(program: Program, chip: Chip) -> Times:
    """The least times of one step, on a chip that reaches all its peaks.

    Example:
        >>> program = Program("fit", 0, 0, 0, 197e12, 819e8, [], 10, 0.0)
        >>> roofline(program, CHIPS["v5e"])
        Times(compute=1.0, memory=0.1, interconnect=0.0, network=0.0)
    """
    inside, across = 0.0, 0.0
    for collective in program.collectives or ():
        if collective.crosses:
            across += sent(collective) / chip.network
        else:
            inside += sent(collective) / chip.interconnect
    return Times(program.flops / chip.peak, (program.bytes or 0.0) / chip.bandwidth, inside, across)


def sent(collective: Collective) -> float:
    """Bytes that each chip sends, by the best algorithm there is on a ring.

    Example:
        >>> sent(Collective("all-reduce", 1, 100.0, 4, False))
        150.0
    """
    others = (collective.group - 1) / max(collective.group, 1)
    share = {
        "all-reduce": 2 * others,
        "reduce-scatter": collective.group - 1,  # bytes are those of the results
        "collective-permute": 1.0,
    }
    return collective.bytes * share.get(collective.kind, others)


def price(chip: str, table: Path = PRICES) -> tuple[float | None, dict[str, Any]]:
    """US dollars for an hour of a chip, None where the table has no price, and what it says of it.

    Args:
        chip: of CHIPS.
        table: a JSON file; see `prices.json` beside this one.

    Raises:
        UsageError: the table cannot be read.
    """
    try:
        entry = json.loads(table.read_text())["chips"].get(chip, {})
        found = entry.get("usd_per_chip_hour")
        return (None if found is None else float(found)), entry
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(
            f"prices: {table} cannot be read ({type(error).__name__}: {error}); expected "
            '{"chips": {"v5e": {"usd_per_chip_hour": 1.0, "date": "...", "source": "..."}}}'
        ) from None


def check_topology(topology: str) -> tuple[str, list[int]]:
    """The chip and the grid of a topology, `"v5e:16x16"`.

    Raises:
        UsageError: no such chip, or no grid for it.

    Example:
        >>> check_topology("v5p:2x2x4")
        ('v5p', [2, 2, 4])
    """
    name, _, grid = topology.partition(":")
    sizes = grid.split("x")
    if name not in CHIPS or not all(s.isascii() and s.isdigit() and int(s) for s in sizes):
        known = ", ".join(CHIPS)
        raise UsageError(f"topology: expected a chip of {known} and a grid, got {topology!r}")
    if len(sizes) != CHIPS[name].dimensions:
        example = "x".join(["4"] * CHIPS[name].dimensions)
        raise UsageError(
            f"topology: {name} has a grid of {CHIPS[name].dimensions} numbers, as {name}:{example};"
            f" got {topology!r}"
        )
    return name, [int(s) for s in sizes]
