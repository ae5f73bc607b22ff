"""Compiling an experiment's programs for machines that are not there.

With a `Planner` in `Parallel`, fits and sweeps compile what they would run, tell the planner, and
give zeros of the right shapes.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute)(?:-start)?\("
)
SHAPE = re.compile(r"(?P<type>[a-z]+)(?P<bits>\d+)?\[(?P<sizes>[\d,]*)\]")


class Program(NamedTuple):
    """What one compiled program needs, of each device.

    Attributes:
        name: of the fit or sweep.
        arguments, outputs, temporaries: bytes.
        flops: by the compiler's count.
        collectives: for each kind, how many there are and their bytes; None where the compiler
            cannot print its program.
    """

    name: str
    arguments: int
    outputs: int
    temporaries: int
    flops: float
    collectives: dict[str, tuple[int, int]] | None


class Enough(BaseException):
    """The planner has seen as many programs as it wanted; not an error for anyone to handle."""


class Planner:
    """Collects programs.

    Args:
        devices: those of a described topology.
        most: programs to collect; then `Enough` is raised.
    """

    def __init__(self, devices: Sequence[Any], most: int):
        self.devices, self.most = list(devices), most
        self.programs: list[Program] = []

    def compile(self, name: str, program: Callable, *arguments: Any) -> None:
        """Compiles a jitted function for these shapes, and keeps what it needs.

        Raises:
            Enough: it was the last one wanted.
        """
        # The mesh in use says which machine is meant; see `jattn.platforms`.
        with jax.set_mesh(jax.tree.leaves(arguments)[0].sharding.mesh):
            compiled = program.lower(*arguments).compile()
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
        try:
            found = collectives(compiled.as_text())
        except jax.errors.JaxRuntimeError:  # libtpu trips over some of its own asynchronous calls.
            found = None
        self.programs.append(
            Program(
                name,
                memory.argument_size_in_bytes,
                memory.output_size_in_bytes - memory.alias_size_in_bytes,
                memory.temp_size_in_bytes,
                float(cost.get("flops", float("nan"))),
                found,
            )
        )
        if len(self.programs) >= self.most:
            raise Enough


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """Counts the collectives of a compiled program, and the bytes they give, by kind.

    A collective in a loop counts once.

    Example:
        >>> collectives("%a = f32[2,3]{1,0} all-reduce(%b), channel_id=1")
        {'all-reduce': (1, 24)}
    """
    count: Counter = Counter()
    size: Counter = Counter()
    for found in COLLECTIVE.finditer(text):
        count[found["kind"]] += 1
        for shape in SHAPE.finditer(found["shapes"]):
            numbers = [int(n) for n in shape["sizes"].split(",") if n]
            size[found["kind"]] += int(np.prod(numbers)) * max(int(shape["bits"] or 8) // 8, 1)
    return {kind: (count[kind], size[kind]) for kind in count}


def zeros(tree: Any) -> Any:
    """NumPy zeros in the shapes of a tree."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
