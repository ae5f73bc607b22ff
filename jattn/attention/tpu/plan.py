"""What a TPU kernel of attention is told: sizes, functions and arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array


class Tile(NamedTuple):
    """How one pass cuts the plane of scores, and the score program for a part of a tile."""

    block_q: int
    block_k: int
    part: int  # of a block of keys
    program: Callable[..., Array] | None


class Plan(NamedTuple):
    """What is fixed when the program is traced; hashable."""

    t: int
    s: int
    forward: Tile
    backward: Tile
    function: Callable[[Array], Array]
    divide: bool
    running_max: bool
    scale: float
    has_bias: bool
    has_shift: bool
    numbers: tuple[bool, ...]  # for each number of the program, whether it is differentiable
    mask: Any  # the tree structure of the mask
    hides: bool  # whether there is a mask
    dtype: Any  # of operands of matrix products
    vmem: int  # bytes of the chip's vector memory that a kernel may take
    interpret: Any


class Floats(NamedTuple):
    """What has a gradient: arrays as `attend` got them, planes with four axes."""

    query: Array
    key: Array
    value: Array
    planes: tuple[Array, ...]  # bias, shift, differentiable numbers of the score program
    sink: Array | None


class Rest(NamedTuple):
    """What has none: the mask's arrays, and integers of the score program."""

    mask: tuple[Array, ...]
    numbers: tuple[Array, ...]
