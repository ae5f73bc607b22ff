"""How engines run on arrays that are spread over many devices.

XLA divides programs made of its own operations, but no kernel, and under meshes with explicit axes
the program itself must say how each result is spread. So the engines run on each device's share of
batch entries and heads, which need nothing of each other; sequences are gathered.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jattn.platforms import platform

# What axes of a mesh are called along which models divide their heads, and their sequences. Where
# the compiler chooses how arrays are spread, a program cannot ask it; it can go by the names.
HEAD_AXES = ("model", "tensor", "heads", "tp", "mp")
SEQUENCE_AXES = ("sequence", "seq", "context", "cp", "sp")


class Layout(NamedTuple):
    """How an engine's arrays are spread over the mesh that they are on.

    Attributes:
        mesh: the mesh, of which some axes are not manual yet.
        batch: axes along which batch entries are divided.
        heads: axes along which heads are divided.
    """

    mesh: Any
    batch: tuple[str, ...]
    heads: tuple[str, ...]

    def __str__(self) -> str:
        def said(what, axes):
            return f"{what} over {', '.join(axes)}" if axes else f"{what} whole"

        gathered = [axis for axis in self.free if axis not in self.batch + self.heads]
        lines = [f"spread: {said('batch', self.batch)}, {said('heads', self.heads)}"]
        if gathered:
            lines.append(
                f"gathered over {', '.join(gathered)}: sequences that are spread are cheaper in "
                "jattn.attention.ring_attend"
            )
        return "\n".join(lines)

    @property
    def free(self) -> tuple[str, ...]:
        """Axes that are not manual."""
        return _free(self.mesh)

    @property
    def explicit(self) -> bool:
        """Whether types of arrays say how they are spread."""
        return _explicit(self.mesh)

    def spec(self, array: Any, batch: int | None, heads: int | None) -> PartitionSpec:
        """How an array is divided whose batch entries and heads lie on these axes.

        An axis of size 1 is whole on every device.
        """
        entries: list[Any] = [None] * array.ndim
        for position, axes in ((batch, self.batch), (heads, self.heads)):
            if position is not None and axes and array.shape[position] > 1:
                entries[position] = axes
        return PartitionSpec(*entries)


def layout_of(*arrays: jax.Array, heads: tuple[int, ...], kernel: bool) -> Layout | None:
    """The layout of an engine's arrays, or None where the program can be left to XLA.

    Args:
        *arrays: query, key and value, with batch entries first.
        heads: numbers of their heads.
        kernel: whether a kernel may be part of the program.
    """
    shardings = [getattr(jax.typeof(x), "sharding", None) for x in arrays]
    meshes = [s.mesh for s in shardings if s is not None] + [jax.sharding.get_abstract_mesh()]
    mesh = next((mesh for mesh in meshes if _free(mesh)), None)
    if mesh is None:
        return None
    free = _free(mesh)
    batch: tuple[str, ...] = ()
    of_heads: tuple[str, ...] = ()
    if _explicit(mesh):
        specs = [_entries(s, x.ndim) for s, x in zip(shardings, arrays, strict=True)]
        batch = next((spec[0] for spec in specs if spec[0]), ())
        of_heads = next((spec[2] for spec in specs if spec[2]), ())
        of_heads = tuple(axis for axis in of_heads if axis not in batch)
    elif kernel:
        left = arrays[0].shape[0]
        for axis in free:
            if axis not in HEAD_AXES + SEQUENCE_AXES and left % mesh.shape[axis] == 0:
                batch += (axis,)
                left //= mesh.shape[axis]
        of_heads = tuple(axis for axis in free if axis in HEAD_AXES)
    else:
        return None
    parts = math.prod(mesh.shape[axis] for axis in of_heads)
    # Query heads that share a head of keys stay together; one head of keys can be everywhere.
    if heads[0] % parts or any(g % parts and g != 1 for g in heads):
        of_heads = ()
    return Layout(mesh, batch, of_heads)


def over_devices(
    layout: Layout, run: Callable[..., Any], operands: PyTree, specs: PyTree, out_specs: PyTree
) -> Any:
    """Runs a function on each device's share of its operands.

    Args:
        layout: of the arrays.
        run: a function of the operands' shares.
        operands: a tree of arrays.
        specs: a tree of the same form: how each is divided.
        out_specs: the same of the results.
    """
    if layout.explicit:
        spread = lambda x, spec: jax.sharding.reshard(x, NamedSharding(layout.mesh, spec))
        operands = jax.tree.map(spread, operands, specs)
    return jax.shard_map(
        run, mesh=layout.mesh, in_specs=(specs,), out_specs=out_specs,
        axis_names=frozenset(layout.free), check_vma=False,
    )(operands)  # fmt: skip


def divided_by_compiler(run: Callable[..., Any], x: jax.Array, *operands: PyTree) -> Any:
    """`run(x, *operands)`, a result spread as x is, with explicit axes left to the compiler inside.

    Where a program has many operations, each would have to say how its result is spread.

    Args:
        run: a function of x and the operands, whose result has x's axes.
        x: an array.
        *operands: trees of arrays.
    """
    sharding = getattr(jax.typeof(x), "sharding", None)
    if sharding is None or not _explicit(sharding.mesh):
        return run(x, *operands)
    leaves, structure = jax.tree.flatten(operands)
    is_array = [isinstance(leaf, jax.Array) for leaf in leaves]

    def run_on_arrays(x, arrays):
        given = iter(arrays)
        pairs = zip(leaves, is_array, strict=True)
        whole = [next(given) if moved else leaf for leaf, moved in pairs]
        return run(x, *jax.tree.unflatten(structure, whole))

    arrays = [leaf for leaf, moved in zip(leaves, is_array, strict=True) if moved]
    divided: Any = jax.sharding.auto_axes(run_on_arrays, out_sharding=sharding)
    return divided(x, arrays)


def along_sequence(layout: Layout, array: jax.Array, like: jax.Array) -> jax.Array:
    """A result `[b, t, h, ...]` with its tokens spread as those of an operand are.

    Without explicit axes it is left to the compiler.
    """
    if not layout.explicit:
        return array
    (_, tokens, *_), now = _entries(jax.typeof(like).sharding, 2), jax.typeof(array).sharding
    entries = _entries(now, array.ndim)
    if not tokens or set(tokens) & {axis for entry in entries for axis in entry}:
        return array
    entries[1] = tokens
    spec = PartitionSpec(*(entry or None for entry in entries))
    return jax.sharding.reshard(array, NamedSharding(layout.mesh, spec))


def sharding_of_rows(index: jax.Array) -> NamedSharding | None:
    """How rows of a table, looked up by an array, are spread: as that is; None: XLA knows.

    Under explicit axes a look-up must say it.
    """
    sharding = getattr(jax.typeof(index), "sharding", None)
    if sharding is None or not _explicit(sharding.mesh):
        return None
    entries = _entries(sharding, index.ndim)
    return NamedSharding(sharding.mesh, PartitionSpec(*(entry or None for entry in entries), None))


def _free(mesh: Any) -> tuple[str, ...]:
    if mesh.empty:
        return ()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    free = tuple(axis for axis, kind in kinds if kind != AxisType.Manual)
    return free if any(mesh.shape[axis] > 1 for axis in free) else ()


def _explicit(mesh: Any) -> bool:
    return AxisType.Explicit in mesh.axis_types


def _entries(sharding: Any, axes: int) -> list[tuple[str, ...]]:
    """The axes of the mesh along which each axis of an array is spread."""
    if sharding is None:
        return [()] * axes
    entries = list(sharding.spec) + [None] * (axes - len(sharding.spec))
    return [() if e is None else e if isinstance(e, tuple) else (e,) for e in entries]


def on_tpu(*arrays: Any) -> bool:
    """Whether the arrays' program is made for a TPU, as their mesh or else the context says."""
    for array in arrays:
        sharding = getattr(jax.typeof(array), "sharding", None)
        device = None if sharding is None else getattr(sharding.mesh, "abstract_device", None)
        if device is not None:
            return device.platform == "tpu"
    return platform() == "tpu"


def vary_like(tree: PyTree, *like: PyTree) -> PyTree:
    """Arrays that are marked as varying over all mesh axes that those of `like` vary over.

    Inside `jax.shard_map` (unless with `check_vma=False`) a loop's carry must have the same marks
    going in as coming out, and an array made there, of zeros say, has none. Elsewhere nothing
    changes.

    Args:
        tree: arrays to be marked.
        like: arrays whose marks are wanted.

    Returns:
        The tree, marked.

    Example:
        >>> float(vary_like(jax.numpy.zeros(()), jax.numpy.ones(3)))
        0.0
    """
    axes = frozenset().union(*(_axes(x) for x in jax.tree.leaves(like)))

    def mark(x):
        missing = axes - _axes(x)
        return jax.lax.pcast(x, tuple(missing), to="varying") if missing else x

    return jax.tree.map(mark, tree) if axes else tree


def _axes(x: Any) -> frozenset:
    if not isinstance(x, jax.Array):
        return frozenset()
    marks: Any = getattr(jax.typeof(x), "manual_axis_type", None)
    return frozenset(marks.varying) if marks is not None else frozenset()
