"""Attention of PyTorch, timed in a process of its own that takes turns with this one.

Each call of `Peer.seconds` runs PyTorch's `scaled_dot_product_attention` once, on inputs of its
own, while this process waits: both have the machine for themselves, and a busy one slows both.
"""

import importlib.util
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Shape(NamedTuple):
    """Sizes of one causal attention, batch 1, float32."""

    length: int
    heads: int
    groups: int
    dim: int


class Peer:
    """PyTorch in another process."""

    def __init__(self, connection: Any):
        self._connection = connection

    def seconds(self, shape: Shape, backward: bool) -> float:
        """Seconds of one run."""
        self._connection.send((tuple(shape), backward))
        found = self._connection.recv()
        if isinstance(found, str):
            raise RuntimeError(f"PyTorch: {found}")
        return found


@contextmanager
def torch_peer() -> Iterator[Peer | None]:
    """Starts it, and ends it; None where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        yield None
        return
    ours, theirs = multiprocessing.Pipe()
    # A fresh interpreter: threads of this one's runtimes do not survive a fork.
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs,), daemon=True
    )
    process.start()
    try:
        yield Peer(ours)
    finally:
        ours.send(None)
        process.join(timeout=10)
        process.kill()


def _serve(connection: Any) -> None:
    """Answers requests until None comes."""
    import torch  # type: ignore

    inputs: dict[tuple[int, ...], list[Any]] = {}
    while (request := connection.recv()) is not None:
        try:
            shape, backward = request
            if shape not in inputs:
                length, heads, groups, dim = shape
                inputs[shape] = [
                    torch.randn(1, h, length, dim, requires_grad=True)
                    for h in (heads, groups, groups)
                ]
            query, key, value = inputs[shape]
            attend = lambda q=query, k=key, v=value: (
                torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
                )
            )
            start = time.perf_counter()
            if backward:
                torch.autograd.grad((attend() ** 2).sum(), (query, key, value))
            else:
                with torch.no_grad():
                    attend()
            connection.send(time.perf_counter() - start)
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")
