"""What a TPU kernel of attention is told: sizes, functions and arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from jattn.attention.tiling import Known


class Tile(NamedTuple):
    """How one pass cuts the logits, and the score program for a part of a tile."""

    block_q: int
    block_k: int
    part: int  # of a block of keys
    program: Callable[..., Array] | None
    summary: Known | None  # of the mask, where it is known


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
    learned: tuple[bool, ...]  # for each operand of the score program, whether it is differentiable
    mask: Any  # the tree structure of the mask
    has_mask: bool  # whether there is a mask
    dropout_rate: float | None
    dtype: Any  # of operands of matrix products
    vmem: int  # bytes of the chip's vector memory that a kernel may take
    interpret: Any


class DifferentiableOperands(NamedTuple):
    """Operands that have a gradient: as `attend` got them, four axes for those of logits."""

    query: Array
    key: Array
    value: Array
    logits_operands: tuple[Array, ...]  # bias, shift, differentiable operands of the score program
    sink: Array | None


class OtherOperands(NamedTuple):
    """Operands without a gradient: the mask's arrays, integers, words of dropout."""

    mask: tuple[Array, ...]
    score_mod_operands: tuple[Array, ...]
    words: tuple[Array, ...]  # of dropout: two of each batch entry and head, or none
