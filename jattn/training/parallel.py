"""Spreading a fit over devices: jit with named shardings, shard_map, or pmap, with equal losses."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jattn.checks import check_choice
from jattn.flops import flops
from jattn.training.errors import UsageError
from jattn.training.memory import check_program
from jattn.training.planning import Planner, zeros

STRATEGIES = ("jit", "shard_map", "pmap")


def parallel_config() -> ml_collections.ConfigDict:
    """The `parallel` field of an experiment's config, with its defaults.

    Returns:
        A `ConfigDict` with `strategy` ("jit", "shard_map" or "pmap"), `mesh`, the number of
        devices along "data" (-1: all that are left) and "model", and `cpu_devices`; see `Parallel`.

    Example:
        >>> parallel_config().mesh.model
        1
    """
    return ml_collections.ConfigDict(
        {"strategy": "jit", "mesh": {"data": -1, "model": 1}, "cpu_devices": 1}
    )


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a fit is spread over devices. Losses do not depend on it, up to rounding.

    If the number of seeds divides over the data axis, each device trains its own seeds and none
    talks to another. Otherwise, if the batch size divides, each device draws its part of the batch
    and gradients are averaged. A model axis above 1 (`"jit"` only) also divides each parameter
    along its largest axis that divides.

    Args:
        strategy: `"jit"` (NamedSharding; the compiler places the communication), `"shard_map"`
            or `"pmap"` (one process only).
        mesh: devices along `"data"` (-1: all that are left) and along `"model"`.
        cpu_devices: devices that the command line splits the CPU into; it has no effect on
            accelerators.
        planner: collects programs for the devices it describes, and nothing is run.

    Raises:
        UsageError: the strategy or the mesh is not one that can be had.

    Example:
        >>> Parallel("shard_map").layout(seeds=4, batch_size=8).strategy
        'shard_map'
    """

    strategy: str = "jit"
    mesh: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"data": -1, "model": 1})
    cpu_devices: int = 1
    planner: Planner | None = None

    def __post_init__(self):
        try:
            check_choice("parallel.strategy", self.strategy, STRATEGIES)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if self.cpu_devices < 1:
            raise UsageError(f"parallel.cpu_devices: expected at least 1, got {self.cpu_devices}")
        unknown = set(self.mesh) - {"data", "model"}
        data, model = self.mesh.get("data", -1), self.mesh.get("model", 1)
        if unknown or data == 0 or data < -1 or model < 1:
            raise UsageError(
                f"parallel.mesh: expected {{'data': n or -1, 'model': n}}, got {dict(self.mesh)}"
            )
        if model > 1 and self.strategy != "jit":
            raise UsageError(
                f"parallel.mesh.model: {self.strategy} divides data only, got model={model}; "
                "use parallel.strategy='jit' or model=1"
            )
        if self.strategy == "pmap" and jax.process_count() > 1:
            raise UsageError(
                "parallel.strategy: pmap runs in one process here; use 'jit' or 'shard_map' with "
                f"{jax.process_count()} processes"
            )

    def described(self) -> str:
        """The devices and how they are used, in words.

        Example:
            >>> Parallel(mesh={"data": 1}).described()
            '1 cpu device(s) in 1 process(es), strategy jit, model 1'
        """
        devices = jax.devices() if self.planner is None else self.planner.devices
        kind, model = devices[0].device_kind, self.mesh.get("model", 1)
        data = self.mesh.get("data", -1)
        count = len(devices) if data == -1 else data * model
        return (
            f"{count} {kind} device(s) in {jax.process_count()} process(es), "
            f"strategy {self.strategy}, model {model}"
        )

    def layout(self, *, seeds: int, batch_size: int) -> "Layout":
        """Chooses what is divided over the data axis.

        Args:
            seeds: number of seeds trained side by side.
            batch_size: examples a step, over all devices.

        Raises:
            UsageError: neither number divides, or there are too few devices.
        """
        mesh = self.device_mesh()
        data = mesh.shape["data"]
        if seeds % data == 0:
            split = "seeds"
        elif batch_size % data == 0:
            split = "batch"
        else:
            raise UsageError(
                f"parallel.mesh: neither seeds={seeds} nor batch_size={batch_size} divides over "
                f"the data axis of {data} devices; change one of the three"
            )
        return Layout(self.strategy, mesh, split)

    def device_mesh(self) -> Mesh:
        """The devices as a mesh with axes "data" and "model".

        Raises:
            UsageError: there are too few devices.
        """
        devices = jax.devices() if self.planner is None else self.planner.devices
        model = self.mesh.get("model", 1)
        data = self.mesh.get("data", -1)
        data = max(len(devices) // model, 1) if data == -1 else data
        used = data * model
        if used > len(devices) or (jax.process_count() > 1 and used != len(devices)):
            raise UsageError(
                f"parallel.mesh: data={data} times model={model} is {used} devices; "
                f"there are {len(devices)}"
            )
        names, types = ("data", "model"), (AxisType.Auto,) * 2
        if self.planner is not None:  # make_mesh would look for the order of real links.
            grid = np.array(devices[:used]).reshape(data, model)
            return Mesh(grid, names, axis_types=types)
        return jax.make_mesh((data, model), names, types, devices=devices[:used])


class Layout(NamedTuple):
    """Where the arrays of one fit lie: every leaf of its state has the seeds as leading axis.

    Attributes:
        strategy: see `Parallel`.
        mesh: devices, with axes "data" and "model".
        split: what the data axis divides: `"seeds"` or `"batch"`.
    """

    strategy: str
    mesh: Mesh
    split: str

    def sharding(self, shape: tuple[int, ...], is_parameter: bool) -> NamedSharding:
        """Placement of one leaf of the state, `[seeds, ...]`."""
        axes: list[str | None] = [None] * len(shape)
        if self.split == "seeds" and axes:
            axes[0] = "data"
        model = self.mesh.shape["model"]
        fitting = [i for i in range(1, len(shape)) if shape[i] and shape[i] % model == 0]
        if is_parameter and model > 1 and fitting:
            axes[max(fitting, key=lambda i: shape[i])] = "model"
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def draw(self, sample: Callable, key: jax.Array, batch_size: int) -> PyTree:
        """Draws the batch of one step, or this device's part of it, inside the traced program.

        Example i has the key `fold_in(key, i)`, so the data do not depend on the devices.
        """
        shared = self.split == "batch"
        indices = jnp.arange(batch_size)
        if shared and self.strategy != "jit":
            here = batch_size // self.mesh.shape["data"]
            indices = lax.axis_index("data") * here + jnp.arange(here)
        batch = jax.vmap(lambda i: sample(jax.random.fold_in(key, i)))(indices)
        if shared and self.strategy == "jit":
            placement = NamedSharding(self.mesh, PartitionSpec("data"))
            batch = lax.with_sharding_constraint(batch, placement)
        return batch

    def mean(self, tree: PyTree) -> PyTree:
        """Averages over the devices that share a batch, inside the traced program."""
        if self.split == "batch" and self.strategy != "jit":
            return lax.pmean(tree, "data")
        return tree  # under jit the arrays are global: their mean already is over all devices

    def compile(self, program: Callable, state: PyTree) -> Callable:
        """Compiles `program(state, start, stop) -> state` for this layout; `state` is given up.

        Args:
            program: works on any number of seeds, and calls `draw` and `mean`.
            state: the arrays it will be called with, or their `ShapeDtypeStruct`s with shardings.

        Returns:
            A compiled function with the same arguments.
        """
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        if self.strategy == "pmap":
            return self._pmap(program, shardings)
        jitted, *arguments = self.lowerable(program, state)
        compiled = jitted.lower(*arguments).compile()
        check_program("the training step", compiled, list(self.mesh.devices.flat))
        return _with_bounds(compiled)

    def lowerable(self, program: Callable, state: PyTree) -> tuple[Any, ...]:
        """The program under `jax.jit` as `compile` compiles it, and the shapes of its arguments."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        if self.strategy == "shard_map":
            spec = PartitionSpec("data" if self.split == "seeds" else None)
            # Gradients are averaged by `mean`, not by the transpose of a replicated argument; and
            # a user's scan need not declare along which mesh axes its carry varies.
            program = jax.shard_map(
                program,
                mesh=self.mesh,
                in_specs=(spec, PartitionSpec(), PartitionSpec()),
                out_specs=spec,
                check_vma=False,
            )
        jitted = jax.jit(
            program,
            in_shardings=(shardings, None, None),
            out_shardings=shardings,
            donate_argnums=0,
        )
        return jitted, state, *(jax.ShapeDtypeStruct((), jnp.int32),) * 2

    def flops(self, program: Callable, state: PyTree) -> float:
        """Operations of one step of the program, of all devices together."""
        bound, data = jax.ShapeDtypeStruct((), jnp.int32), self.mesh.shape["data"]
        # Outside of `shard_map` and `pmap` the axis that they name is there by its size alone.
        traced = jax.make_jaxpr(program, axis_env=[("data", data)])(state, bound, bound)
        own_part = self.split == "batch" and self.strategy != "jit"
        return flops(traced) * (data if own_part else 1)

    def _pmap(self, program: Callable, placements: PyTree) -> Callable:
        """As `compile`, with a leading axis of devices round the state during the call."""
        count, by_seed = self.mesh.shape["data"], self.split == "seeds"
        devices = list(self.mesh.devices.flat)
        stacked = NamedSharding(Mesh(devices, ("data",)), PartitionSpec("data"))

        def spread(leaf):
            whole = (count, -1, *leaf.shape[1:])
            leaf = leaf.reshape(whole) if by_seed else jnp.stack([leaf] * count)
            return jax.device_put(leaf, stacked)

        def collect(leaf, placement):
            leaf = leaf.reshape(-1, *leaf.shape[2:]) if by_seed else leaf[0]
            return jax.device_put(leaf, placement)

        compiled = jax.pmap(
            program,
            axis_name="data",
            in_axes=(0, None, None),
            devices=devices,
            donate_argnums=0,
        )
        return _with_bounds(
            lambda state, start, stop: jax.tree.map(
                collect, compiled(jax.tree.map(spread, state), start, stop), placements
            )
        )


def _with_bounds(compiled: Callable) -> Callable:
    return lambda state, start, stop: compiled(state, np.int32(start), np.int32(stop))


def map_over_devices(
    function: Callable[[PyTree], PyTree], parallel: Parallel, name: str = "sweep"
) -> Callable[[PyTree], PyTree]:
    """Maps a function over cells of a sweep, each on one device, in one compiled program.

    Args:
        function: a pure function of one cell, a pytree of arrays or numbers.
        parallel: the devices along "data" share the cells, by `parallel.strategy`.
        name: what a planner is told.

    Returns:
        `run(cells) -> results` on pytrees whose leaves have one more leading axis, of any equal
        length: a device takes its cells one after the other, and repeats the last where the
        length does not divide. Results are numpy arrays. It compiles once for each length.

    Raises:
        UsageError: there are too few devices.

    Example:
        >>> double = map_over_devices(lambda cell: 2 * cell, Parallel())
        >>> double(np.arange(3)).tolist()
        [0, 2, 4]
    """
    mesh = parallel.device_mesh()
    devices = mesh.shape["data"]
    placement = NamedSharding(mesh, PartitionSpec("data"))

    def several(cells):
        return lax.map(function, cells)

    if parallel.strategy == "pmap":
        program = jax.pmap(several, devices=list(mesh.devices.flat))
    else:
        # Under `jit` alone the compiler gathers in every cell what each device has of its own.
        here = jax.shard_map(
            lambda cells: jax.vmap(several)(cells),
            mesh=mesh,
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec("data"),
            check_vma=False,
        )
        program = jax.jit(here, in_shardings=placement, out_shardings=placement)

    sizes: set[int] = set()

    def run(cells):
        length = len(jax.tree.leaves(cells)[0])
        each = -(-length // devices)
        if parallel.planner is not None:
            shapes = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    (devices, each, *np.shape(leaf)[1:]),
                    jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype),
                    sharding=placement,
                ),
                cells,
            )
            parallel.planner.compile(name, program, shapes)
            results = zeros(jax.eval_shape(program, shapes))
            return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:length], results)
        order = np.minimum(np.arange(devices * each), length - 1).reshape(devices, each)
        spread = jax.tree.map(lambda leaf: np.asarray(leaf)[order], cells)
        if parallel.strategy != "pmap" and length not in sizes:
            sizes.add(length)
            compiled = program.lower(spread).compile()  # the call below finds it again
            check_program(name, compiled, list(mesh.devices.flat))
        results = to_host(program(spread))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:length], results)

    return run


def to_host(tree: PyTree) -> PyTree:
    """Copies arrays to the host as numpy, whole also where many processes hold their parts."""
    if jax.process_count() == 1:
        return jax.tree.map(np.array, jax.device_get(tree))
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def agree(choice: np.ndarray) -> np.ndarray:
    """All processes' copies of a small array of choices, `[processes, ...]`.

    Processes must dispatch the same programs in the same order, so a choice that depends on a
    clock or a signal is made from what all of them saw.
    """
    if jax.process_count() == 1:
        return choice[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(choice))


def start_distributed(timeout: float, **options: Any) -> None:
    """Joins the other processes of a run; on TPU pods it needs no options.

    Args:
        timeout: seconds to wait for them.
        **options: of `jax.distributed.initialize`; None: found by itself.

    Raises:
        UsageError: they cannot be joined.
    """
    count, address = options.get("num_processes"), options.get("coordinator_address")
    if address is None:
        whom = "for the other processes of this pod or cluster"
    else:
        whom = f"at {address} for {count} processes, of which this is {options.get('process_id')}"
    print(f"waiting {whom}", flush=True)
    seconds = max(int(timeout), 1)
    try:
        jax.distributed.initialize(
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=min(max(seconds, 10), 100),
            **{k: v for k, v in options.items() if v is not None},
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        if "before any JAX" in reason:
            reason = "an imported module makes jax arrays at import; make them in a function"
        raise UsageError(f"--distributed: {reason}") from None
