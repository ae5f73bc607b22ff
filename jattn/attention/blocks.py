"""Sizes of the tiles that kernels work on: given, or from a table of chips and shapes."""

import json
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from jattn.attention.attention_args import AttentionArgs
from jattn.attention.masks import Mask, band
from jattn.platforms import device_kind

LANES = 128
HEAD_SIZES = (64, 128, 256)  # The table's classes: up to so many.
CHIPS = {
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}


class Blocks(NamedTuple):
    """Sizes of tiles for `attend(..., implementation=Blocks(...))`, the Pallas kernels on TPUs.

    A tile of keys is worked on in parts, so that the chip's units overlap. Sequences are cut into
    as few blocks as these sizes allow, all of about the same length, in whole registers (128).
    Equal numbers of queries and keys let a causal kernel know which part of a tile meets which
    queries. Without an implementation or with "pallas", the sizes come from a table made by
    `python -m experiments.tools.tune`; `jattn.attention.explain` says which.

    Attributes:
        query, key: block of queries and of keys, forward.
        key_part: part of a block of keys, a divisor of it; a multiple of 128.
        backward_query, backward_key, backward_key_part: the same, backward.

    Example:
        >>> Blocks(query=512, key=512).key_part
        256
    """

    query: int = 1024
    key: int = 1024
    key_part: int = 256
    backward_query: int = 1024
    backward_key: int = 1024
    backward_key_part: int = 256

    def __bool__(self) -> bool:
        raise ValueError("implementation: Blocks have no truth value, and cannot be joined")


_TABLE = json.loads(Path(__file__).with_name("block_table.json").read_text())


def check_blocks(blocks: Blocks) -> None:
    """Checks sizes that someone gave.

    Raises:
        ValueError: a size is no multiple of 128.
    """
    for name, size in blocks._asdict().items():
        if isinstance(size, bool) or not isinstance(size, int) or size < LANES or size % LANES:
            raise ValueError(f"implementation: expected {name} a multiple of {LANES}, got {size}")


def class_name(head_size: int, mask: str) -> str:
    """The table's name of a class.

    Example:
        >>> class_name(64, "causal")
        'heads up to 64 causal'
    """
    return f"heads up to {head_size} {mask}"


def table_blocks(args: AttentionArgs) -> tuple[Blocks, str]:
    """The blocks for a call on the chip at hand, and where they come from.

    The table knows bfloat16 and masks that are bands, or none. What it does not know gets the
    defaults.
    """
    chip = CHIPS.get(device_kind())
    head_size = max(args.query.shape[3], args.value.shape[3])
    sizes = [size for size in HEAD_SIZES if head_size <= size]
    dtype = jnp.result_type(args.query, args.key, args.value)
    mask = _mask_class(args.mask)
    unknown = {
        f"chip {device_kind()!r}": chip not in _TABLE,
        f"dtype {dtype}": dtype != jnp.bfloat16,
        f"head size {head_size}": not sizes,
        "mask that is no band": mask is None,
    }
    for reason, holds in unknown.items():
        if holds:
            return Blocks(), f"the defaults: the table has no {reason}"
    name = class_name(sizes[0], str(mask))
    entry = _TABLE[chip].get(name)
    if entry is None:
        return Blocks(), f"the defaults: the table has nothing for {chip}, {name}"
    return Blocks(*(entry[field] for field in Blocks._fields)), f"the table for {chip}, {name}"


def _mask_class(mask: Mask | None) -> str | None:
    """ "window" for a band with two edges, "causal" for one with fewer or no mask, else None."""
    bounds = (None, None) if mask is None else band(mask)
    if bounds is None:
        return None
    return "causal" if None in bounds else "window"
