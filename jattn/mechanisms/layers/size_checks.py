"""Sizes that fit each other: heads, grids, divisors."""

from collections.abc import Sequence
from typing import Any

from jattn.checks import check_count


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`, 1 at least.

    Example:
        >>> largest_divisor(12, 5)
        4
    """
    return max(d for d in range(1, max(limit, 1) + 1) if number % d == 0)


def check_heads(dim: int, heads: int, kv_heads: int | None = None) -> None:
    """Checks that heads divide the model dimension, and key-value heads the heads.

    Raises:
        ValueError: they do not.
    """
    check_count("dim", dim)
    check_count("heads", heads)
    if dim % heads:
        raise ValueError(f"heads: expected a divisor of dim={dim}, got {heads}")
    if kv_heads is not None:
        check_count("kv_heads", kv_heads)
        if heads % kv_heads:
            raise ValueError(f"kv_heads: expected a divisor of heads={heads}, got {kv_heads}")


def check_grid(grid: Any) -> tuple[int, int]:
    """The height and width of an image.

    Raises:
        ValueError: they are not two numbers of 1 or more.
    """
    if not isinstance(grid, Sequence) or isinstance(grid, str) or len(grid) != 2:
        raise ValueError(f"grid: expected a height and a width, got {grid!r}")
    for size in grid:
        check_count("grid", size)
    return grid[0], grid[1]
