"""What a GPU kernel of attention is told: sizes, functions and arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

WARPGROUP_ROWS = 64  # Rows of a product that a warpgroup, 128 threads, computes at a time.
COLUMNS = 64  # Head dimensions come in multiples: a swizzled line of shared memory is 128 bytes.
WIDEST = 256  # Head dimensions that shared memory and registers can hold.


Program = Callable[..., Array]


class Tile(NamedTuple):
    """How a kernel cuts the logits.

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
    learned: tuple[bool, ...]  # for each operand of the score program, whether it is differentiable
    mask: Any  # the tree structure of the mask
    has_mask: bool  # whether there is a mask
    dtype: Any  # of operands of matrix products
    interpret: Any

    def score_mod_operands(self, x: "DifferentiableOperands", rest: "OtherOperands") -> list[Array]:
        """All operands of the score program, in its order."""
        floats, others = iter(x.score_mod_operands), iter(rest.score_mod_operands)
        return [next(floats if learn else others) for learn in self.learned]

    def wanted(self, x: "DifferentiableOperands", along_keys: bool) -> list[int]:
        """Which operands have gradients that are summed for each key; or else for each query."""
        learned = [n for n, learn in enumerate(self.learned) if learn]
        pairs = zip(learned, x.score_mod_operands, strict=True)
        return [n for n, number in pairs if (number.shape[3] > 1) == along_keys]


class DifferentiableOperands(NamedTuple):
    """Operands that have a gradient: arrays as `attend` got them."""

    query: Array
    key: Array
    value: Array
    sink: Array | None
    score_mod_operands: tuple[Array, ...]  # `[#b, #h, #t, #s]`, not both t and s


class OtherOperands(NamedTuple):
    """Operands without a gradient: the mask's arrays, and integers of the score program."""

    mask: tuple[Array, ...]
    score_mod_operands: tuple[Array, ...]
