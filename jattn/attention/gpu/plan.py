"""What a GPU kernel of attention is told: sizes, functions and arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

WARPGROUP_ROWS = 64  # Rows of a product that a warpgroup, 128 threads, computes at a time.
COLUMNS = 64  # Head dimensions come in multiples: a swizzled line of shared memory is 128 bytes.
WIDEST = 256  # Head dimensions that shared memory and registers can hold.


Program = Callable[..., Array]


class Tile(NamedTuple):
    """How a kernel cuts the plane of scores.

    A thread block keeps `groups * 64` rows (queries; keys in the kernel of their gradients), and
    meets blocks of `columns` of the other axis, of which `stages` are in shared memory at a time.
    """

    groups: int  # warpgroups that compute; one more copies
    columns: int
    stages: int

    @property
    def rows(self) -> int:
        return self.groups * WARPGROUP_ROWS


class Plan(NamedTuple):
    """What is fixed when the program is traced; hashable."""

    t: int
    s: int
    forward: Tile
    backward: Tile
    scale: float
    programs: tuple[Program, Program] | None  # of a score modification: forward, backward
    learned: tuple[bool, ...]  # for each number of the program, whether it is differentiable
    mask: Any  # the tree structure of the mask
    hides: bool  # whether there is a mask
    dtype: Any  # of operands of matrix products
    interpret: Any

    def numbers(self, x: "Floats", rest: "Rest") -> list[Array]:
        """All numbers of the score program, in its order."""
        floats, others = iter(x.numbers), iter(rest.numbers)
        return [next(floats if learn else others) for learn in self.learned]

    def wanted(self, x: "Floats", along_keys: bool) -> list[int]:
        """Which numbers have gradients that are summed for each key; or else for each query."""
        learned = [n for n, learn in enumerate(self.learned) if learn]
        pairs = zip(learned, x.numbers, strict=True)
        return [n for n, number in pairs if (number.shape[3] > 1) == along_keys]


class Floats(NamedTuple):
    """What has a gradient: arrays as `attend` got them."""

    query: Array
    key: Array
    value: Array
    sink: Array | None
    numbers: tuple[Array, ...]  # of the score program, `[#b, #h, #t, #s]`, not both t and s


class Rest(NamedTuple):
    """What has none: the mask's arrays, and integers of the score program."""

    mask: tuple[Array, ...]
    numbers: tuple[Array, ...]
