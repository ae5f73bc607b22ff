"""Whether what is asked for fits the memory there is, before anything is compiled."""

import os
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from jattn.training.errors import UsageError


def size(tree: PyTree) -> int:
    """Bytes of a tree's arrays, or of what their `ShapeDtypeStruct`s describe.

    Example:
        >>> size({"w": jax.ShapeDtypeStruct((3, 2), "float32")})
        24
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_fits(what: str, count: int, devices: Sequence[Any]) -> None:
    """Refuses what takes more memory than the devices have together.

    Args:
        what: what it is, with the setting that decides it: `"batch_size: 10 examples a step"`.
        count: its bytes.
        devices: those that share it; where their memory is not known, all is taken to fit.

    Raises:
        UsageError: it does not fit.
    """
    there = _memory(devices)
    if there is not None and count > there:
        raise UsageError(
            f"{what} takes at least {_shown(count)} of memory, and there are {_shown(there)}"
        )


def check_program(what: str, compiled: Any, devices: Sequence[Any]) -> None:
    """Refuses a compiled program that takes more memory than there is, before it runs.

    Raises:
        UsageError: it does not fit.
    """
    needs = compiled.memory_analysis()
    if needs is not None:
        each = needs.argument_size_in_bytes + needs.output_size_in_bytes + needs.temp_size_in_bytes
        check_fits(what, (each - needs.alias_size_in_bytes) * len(devices), devices)


def _memory(devices: Sequence[Any]) -> int | None:
    if devices[0].platform == "cpu":  # they share the host's
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    known = [limit for limit in limits if limit is not None]
    return sum(known) if len(known) == len(limits) else None


def _shown(count: int) -> str:
    return f"{count / 2**30:,.4g} GiB"
