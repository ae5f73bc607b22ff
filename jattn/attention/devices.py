"""Attention on arrays that are spread over devices: each works on its batch entries and heads."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.sharding import PartitionSpec
from jaxtyping import Array

from jattn.attention.attention_args import AttentionArgs
from jattn.attention.scalar_functions import INDEX, ScalarFunction, trace
from jattn.sharding import Layout, along_sequence, over_devices


def attend_over_devices(
    args: AttentionArgs, layout: Layout, run: Callable[[AttentionArgs], tuple[Any, ...]]
) -> tuple[Any, ...]:
    """Runs attention on each device's share of batch entries and heads.

    Args:
        args: what `attend` was asked.
        layout: how its arrays are spread.
        run: from arguments to a tuple of results: out `[b, t, h, e]`, lse `[b, t, h]` if asked
            for, weights `[b, h, t, s]` if asked for.
    """
    with_paths, structure = jax.tree.flatten_with_path(args)
    leaves = [leaf for _, leaf in with_paths]
    each = [_spec_of(path, leaf, layout) for path, leaf in with_paths]
    # What is known when the program is made, and the same on all devices, stays known.
    moved = [
        not isinstance(leaf, np.ndarray | float) or any(spec)
        for leaf, spec in zip(leaves, each, strict=True)
    ]

    def share(operands):
        given = iter(operands)
        own = [next(given) if move else leaf for leaf, move in zip(leaves, moved, strict=True)]
        return run(_local(jax.tree.unflatten(structure, own), layout))

    out = [_spec(layout, 4, 0, 2)]
    if args.return_lse:
        out.append(_spec(layout, 3, 0, 2))
    if args.return_weights:
        out.append(_spec(layout, 4, 0, 1))
    pick = lambda values: [v for v, move in zip(values, moved, strict=True) if move]
    operands = [jnp.asarray(leaf) for leaf in pick(leaves)]
    output, *more = over_devices(layout, share, operands, pick(each), tuple(out))
    if args.return_lse:
        more[0] = along_sequence(layout, more[0], args.query)
    return along_sequence(layout, output, args.query), *more


def _spec(layout: Layout, axes: int, batch: int, heads: int) -> PartitionSpec:
    entries: list[Any] = [None] * axes
    entries[batch], entries[heads] = layout.batch or None, layout.heads or None
    return PartitionSpec(*entries)


def _spec_of(path: tuple[Any, ...], leaf: Any, layout: Layout) -> PartitionSpec:
    """How one array of the arguments is divided, by the field that it is in."""
    field, *inner = (key.name for key in path if hasattr(key, "name"))
    if field in ("closed_over", "scale") or "closed_over" in inner:
        return PartitionSpec()
    axes = {"query": (0, 2), "key": (0, 2), "value": (0, 2), "dropout": (1, 2)}
    return layout.spec(leaf, *axes.get(field, (0, 1)))


def _local(args: AttentionArgs, layout: Layout) -> AttentionArgs:
    """The arguments with a score modification that knows which batch entries and heads are here."""
    if args.score_function is None:
        return args
    b, h = args.query.shape[0], args.query.shape[2]
    function, closed_over = at_share(
        args.score_function, args.closed_over, layout, (b, h), args.dtype
    )
    return dataclasses.replace(args, score_function=function, closed_over=tuple(closed_over))


def at_share(
    function: ScalarFunction, closed_over: Any, layout: Layout, sizes: tuple[int, int], dtype: Any
) -> tuple[ScalarFunction, list[Array]]:
    """A score modification for the batch entries and heads of this device's share.

    Args:
        function: the modification, for all of them.
        closed_over: what it closes over.
        layout: how they are divided.
        sizes: how many batch entries and heads a share has.
        dtype: of scores.
    """
    axes = (layout.batch, layout.heads)
    first = [jax.lax.axis_index(a) * n if a else 0 for a, n in zip(axes, sizes, strict=True)]

    def scalar(score, batch, head, q_index, k_index):
        indices = (batch + first[0], head + first[1], q_index, k_index)
        return eval_jaxpr(function.jaxpr, closed_over, score, *indices)[0]

    # Kernels call it with whole tiles.
    over_any = jnp.vectorize(scalar)
    return trace("score_mod", over_any, jax.ShapeDtypeStruct((), dtype), *[INDEX] * 4)
