"""Sizes of the tiles that kernels work on."""

from typing import NamedTuple


class Blocks(NamedTuple):
    """Sizes of tiles for `attend(..., implementation=Blocks(...))`, the Pallas kernels.

    A tile of keys is worked on in parts, so that the chip's units overlap. Sequences shorter than
    a block make one block, of whole registers (128). Equal numbers of queries and keys let a
    causal kernel know which part of a tile meets which queries.

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
