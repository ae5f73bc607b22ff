"""Compiling an experiment's programs for machines that are not there.

With a `Planner` in `Parallel`, fits and sweeps compile what they would run, tell the planner, and
give zeros of the right shapes.
"""

import contextlib
import dataclasses
import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import numpy as np

from jattn.flops import flops
from jattn.training.errors import UsageError
from jattn.training.hlo import Collective, moved


@dataclasses.dataclass
class Program:
    """What one compiled program needs, of each device.

    Attributes:
        name: of the fit or sweep.
        arguments, outputs, temporaries: bytes.
        flops: operations of one step, or of one call where there are no steps.
        bytes: what a step moves from and to memory; None where the compiler cannot print it.
        collectives: those of a step; None where the compiler cannot print its program.
        steps: how many there are in the whole experiment.
        seconds: that it took to compile.
    """

    name: str
    arguments: int
    outputs: int
    temporaries: int
    flops: float
    bytes: float | None
    collectives: list[Collective] | None
    steps: int
    seconds: float


class Enough(BaseException):
    """The planner has seen as many programs as it wanted; not an error for anyone to handle."""


class Late(BaseException):
    """A study has computed too long without a program; not an error for anyone else to handle."""


class Planner:
    """Collects programs. One that comes again is not compiled again: it has more steps.

    Args:
        devices: those of a described topology.
        most: programs to collect; then `Enough` is raised.
        seconds: after which no program but the first is compiled; then `Enough` is raised.
        slices: in how many groups the devices are, with only a network between them.
        note: told, in a line, of each program.
        between: seconds that a study may take without a program, before it is left.

    Attributes:
        programs: what was compiled.
        left: studies that were not planned to their end, and why.
    """

    def __init__(
        self,
        devices: Sequence[Any],
        most: int,
        slices: int = 1,
        note: Callable[[str], object] = lambda text: None,
        seconds: float = math.inf,
        between: int | None = None,
    ):
        self.devices, self.most, self.slices, self._note = list(devices), most, slices, note
        self.programs: list[Program] = []
        self.left: dict[str, str] = {}
        self._between = between
        self._end = time.monotonic() + seconds
        self._known: dict[str, Program] = {}

    @contextlib.contextmanager
    def study(self, name: str) -> Iterator[None]:
        """Plans a study. One that depends on results, or computes for long, is left for the next.

        Args:
            name: of the study.

        Raises:
            Enough: no more programs are wanted.
            UsageError: it cannot be had as asked on these devices.
        """
        try:
            with self._watched():
                yield
        except Late:
            self.left[name] = f"computes for {self._between} s without a program"
        except UsageError:
            raise
        except Exception as error:
            if "RESOURCE_EXHAUSTED" in str(error):  # a program does not fit
                raise
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self._note(f"study {name}: {said[:160]}")
            self.left[name] = "depends on results"
        if name in self.left:
            self._note(f"study {name} is left: it {self.left[name]}")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Raises `Late` in what takes too long without a program."""
        if self._between is None:
            yield
            return

        def late(*_: object) -> NoReturn:
            raise Late

        before = signal.signal(signal.SIGALRM, late)
        self._watch(True)
        try:
            yield
        finally:
            self._watch(False)
            signal.signal(signal.SIGALRM, before)

    def _watch(self, on: bool) -> None:
        if self._between is not None:
            signal.setitimer(signal.ITIMER_REAL, self._between if on else 0)

    def compile(self, name: str, program: Any, *arguments: Any, steps: int = 1) -> None:
        """Compiles a jitted function for these shapes, and keeps what it needs.

        Args:
            name: of the fit or sweep.
            program: a jitted function.
            arguments: what it will be called with, or their shapes.
            steps: how often it runs, or how many steps its outermost loop makes.

        Raises:
            Enough: it was the last one wanted.
        """
        self._watch(False)
        # The mesh in use says which machine is meant; see `jattn.platforms`.
        mesh = jax.tree.leaves(arguments)[0].sharding.mesh
        with jax.set_mesh(mesh):
            traced = program.trace(*arguments)
            lowered = traced.lower()
            key = hashlib.sha256(lowered.as_text().encode()).hexdigest()
            if key in self._known:
                self._known[key].steps += steps
                self._watch(True)
                return
            late = bool(self.programs) and time.monotonic() > self._end
            if late or len(self.programs) >= self.most:
                raise Enough
            began = time.monotonic()
            compiled = lowered.compile()
            seconds = time.monotonic() - began
        memory = compiled.memory_analysis()
        touched, collectives = None, None
        # libtpu trips over some of its own asynchronous calls.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            touched, collectives = moved(compiled.as_text(), mesh.size, self.slices)
        found = Program(
            name,
            memory.argument_size_in_bytes,
            memory.output_size_in_bytes - memory.alias_size_in_bytes,
            memory.temp_size_in_bytes,
            flops(traced.jaxpr) / mesh.size,
            touched,
            collectives,
            steps,
            seconds,
        )
        self._known[key] = found
        self.programs.append(found)
        self._note(f"{name}: compiled in {seconds:.0f} s")
        self._watch(True)


def zeros(tree: Any) -> Any:
    """NumPy zeros in the shapes of a tree."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
