"""Training: many seeds side by side, many steps a dispatch, resumable bit for bit."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Int32, PyTree, Shaped

from jattn.training.checkpoints import Checkpoints
from jattn.training.errors import Interrupted, NonFiniteError, UsageError
from jattn.training.fingerprint import described, program_fingerprint
from jattn.training.memory import check_fits, size
from jattn.training.parallel import Layout, agree, to_host
from jattn.training.planning import zeros
from jattn.training.run import Run
from jattn.training.speed import Speed

SECONDS_A_DISPATCH = 1.0  # so a request to stop is met soon, and the host's share stays small
SECONDS_BETWEEN_CHECKPOINTS = 60.0


class FitResult(NamedTuple):
    """What a fit gives.

    Attributes:
        params: the parameters at the end, each leaf `[seeds, ...]`.
        history: what was noted, each `[logs, seeds, ...]`: `"loss"`, the mean loss since the last
            note (at step 0: the loss of the first batch), and what `record` gave.
        steps: the steps at which it was noted, `[logs]`.
    """

    params: PyTree[Array]
    history: dict[str, Shaped[np.ndarray, "logs seeds ..."]]
    steps: Int[np.ndarray, " logs"]


class State(NamedTuple):
    """All that a fit carries from step to step; every leaf has the seeds as leading axis."""

    params: PyTree
    opt_state: PyTree
    history: dict[str, Array]  # [seeds, logs, ...]
    total: Float[Array, " *seeds"]  # sum of the losses since the last note
    bad: Int32[Array, " *seeds"]  # the first step that was not finite, or -1
    seed: Int32[Array, " *seeds"]  # index of the seed, from which all randomness comes


def fit(
    init: Callable[[jax.Array], PyTree],
    loss: Callable[[PyTree, PyTree], jax.Array | tuple[jax.Array, PyTree]],
    sample: Callable[[jax.Array], PyTree],
    optimizer: optax.GradientTransformation,
    *,
    run: Run,
    name: str,
    seeds: int,
    steps: int,
    batch_size: int,
    seed: int = 0,
    log_every: int = 100,
    record: Callable[[PyTree], dict[str, Array]] | None = None,
    steps_per_dispatch: int | None = None,
    checkpoint_every: int | None = None,
) -> FitResult:
    """Minimises `loss` by stochastic gradient steps, from several seeds side by side.

    At step n seed i draws example j with the key

        fold_in(fold_in(data_i, n), j),   (init_i, data_i) = split(fold_in(key(seed), i))

    so the data do not depend on the devices or on how the fit is spread over them. Any number of
    steps is one call of one compiled program, in which the batches are drawn, too.

    The state goes to `checkpoints/NAME` of the run. A fit that was stopped goes on from its last
    checkpoint and ends with the same bits as one that was not; a finished one is read back. Both
    only if `init`, `loss`, `sample`, `optimizer` and `record` are the same program as before.

    Args:
        init: `(key) -> params`.
        loss: `(params, batch) -> scalar`, the mean over the leading axis of the batch; or
            `(scalar, statistics)`, a tree like the parameters with the next value of each one that
            is an average over training, which then no optimizer moves (nor weight decay), and None
            in place of the others. See `jattn.nn.statistics`.
        sample: `(key) -> example`, one example as a pytree of arrays.
        optimizer: an optax gradient transformation.
        run: the open workdir; its `parallel` says how to spread the fit over devices.
        name: name of this fit, unique in its run.
        seeds: number of seeds.
        steps: number of steps.
        batch_size: examples a step and seed, over all devices.
        seed: the base seed.
        log_every: note the loss and `record(params)` at step 0, every so many steps, and at the
            end.
        record: `(params) -> dict` of small arrays to note.
        steps_per_dispatch: steps a call of the compiled program; by default about one second's.
        checkpoint_every: steps between checkpoints; by default about a minute's. There is always
            one at the end.

    Returns:
        A `FitResult`.

    Raises:
        UsageError: an argument is out of range, the devices cannot share the work, or the
            checkpoints there are of other settings or other code, or cannot be read.
        NonFiniteError: the loss or a parameter became NaN or infinite. Such a state is never
            saved.
        Interrupted: the run was asked to stop; the state is saved.

    Example:
        >>> import tempfile
        >>> def sample(key):
        ...     x = jax.random.normal(key, (2,))
        ...     return x, x @ jnp.array([1.0, -1.0])
        >>> def loss(params, batch):
        ...     return jnp.mean((batch[0] @ params - batch[1]) ** 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Run.open(folder, {}, name="example") as run:
        ...         result = fit(lambda key: jnp.zeros(2), loss, sample, optax.sgd(0.1), run=run,
        ...                      name="linear", seeds=3, steps=200,
        ...                      batch_size=8)  # doctest: +ELLIPSIS
        linear: 200/200...
        >>> result.params.shape, bool(jnp.allclose(result.params, jnp.array([1.0, -1.0]), atol=0.1))
        ((3, 2), True)
    """
    counts = {"seeds": seeds, "steps": steps, "batch_size": batch_size, "log_every": log_every}
    optional = {"steps_per_dispatch": steps_per_dispatch, "checkpoint_every": checkpoint_every}
    for field, value in (counts | optional).items():
        if value is not None and value < 1:
            raise UsageError(f"{field}: expected at least 1, got {value}")
    if name in run.fits:  # it would be given the other's checkpoints
        raise UsageError(f"name: this run has a fit {name!r} already; use another name")
    run.fits.add(name)

    layout = run.parallel.layout(seeds=seeds, batch_size=batch_size)
    notes = np.append(np.arange(0, steps, log_every), steps)
    start = _start(init, optimizer, record, seeds, len(notes), seed)
    like = _placed(jax.eval_shape(start), layout)
    settings = {"seed": seed, **counts}
    if run.parallel.planner is not None:
        program = _program(loss, sample, optimizer, record, layout, notes, batch_size, seed)
        run.parallel.planner.compile(name, *layout.lowerable(program, like), steps=steps)
        history = {field: np.moveaxis(x, 0, 1) for field, x in zeros(like.history).items()}
        return FitResult(jax.tree.map(jnp.asarray, zeros(like.params)), history, notes)
    devices = list(layout.mesh.devices.flat)
    check_fits(f"seeds: the state of {seeds} seeds", size(like), devices)
    check_fits(
        f"batch_size: {batch_size} examples a step of each of {seeds} seeds",
        seeds * batch_size * size(jax.eval_shape(sample, jax.eval_shape(jax.random.key, 0))),
        devices,
    )
    code = described(_code(init, loss, sample, optimizer, record, batch_size))
    checkpoints = Checkpoints(run.workdir / "checkpoints" / name, settings, code, run.note)
    try:
        restored = checkpoints.restore(like)
        if restored is None:
            shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
            step, state = 0, jax.jit(start, out_shardings=shardings)()
        else:
            step, state = restored
        speed = None
        if step < steps:
            program = _program(loss, sample, optimizer, record, layout, notes, batch_size, seed)
            with run.goodput.of("compilation"):
                advance = layout.compile(program, like)
                speed = Speed(run, name, seeds * batch_size, layout, program, like)
            if step:
                run.note(f"{name}: going on from step {step}")
        pace = _Pace(steps_per_dispatch, checkpoint_every)
        with run.progress(name, steps, step) as shown:
            while step < steps:
                assert speed is not None
                stop = pace.next_stop(step, steps)
                with run.goodput.of("training steps"), speed.of(step, stop) as stop:
                    state = advance(state, step, stop)
                    noted, bad = to_host((state.history, state.bad))
                _log(run, name, noted, notes, step, stop, bad)
                if np.any(bad >= 0):
                    first = int(np.argmin(np.where(bad < 0, steps, bad)))
                    raise NonFiniteError(name, int(bad[first]), first)
                last = int(np.searchsorted(notes, stop, side="right")) - 1
                mean_loss = float(np.mean(noted["loss"][:, last]))
                shown(stop - step, mean_loss)
                step = stop
                with run.goodput.of("waiting for other processes"):
                    save, interrupted = pace.after(step, run.interrupted)
                with run.goodput.of("checkpoints"):
                    if save or interrupted or step == steps:
                        run.flush(now=True)
                        checkpoints.save(step, state, mean_loss)
                    if interrupted and step < steps:
                        checkpoints.wait()
                        raise Interrupted
    finally:
        with run.goodput.of("checkpoints"):
            checkpoints.close()
    params, history = to_host((state.params, state.history))
    history = {field: np.moveaxis(value, 0, 1) for field, value in history.items()}
    if run.interrupted:
        raise Interrupted
    return FitResult(jax.tree.map(jnp.asarray, params), history, notes)


def _start(init, optimizer, record, seeds, logs, seed):
    """The program `() -> State` before the first step."""

    def one(index):
        params = init(jax.random.split(jax.random.fold_in(jax.random.key(seed), index))[0])
        entries = {"loss": jnp.zeros(())} | _recorded(record, params)
        history = {
            field: jnp.zeros((logs, *value.shape), value.dtype).at[0].set(value)
            for field, value in entries.items()
        }
        return State(
            params,
            optimizer.init(params),
            history,
            total=jnp.zeros(()),
            bad=jnp.int32(-1),
            seed=index,
        )

    return lambda: jax.vmap(one)(jnp.arange(seeds, dtype=jnp.int32))


def _code(init, loss, sample, optimizer, record, batch_size) -> dict[str, str]:
    """Fingerprints of all that a fit computes, on one device, however it is spread."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))
    params, batch = jax.eval_shape(init, key), jax.eval_shape(jax.vmap(sample), keys)

    def update(params, gradient):
        return optimizer.update(gradient, optimizer.init(params), params)

    return {
        "initialisation": program_fingerprint(init, key),
        "sampler": program_fingerprint(sample, key),
        "loss": program_fingerprint(_gradient_of(loss), params, batch),
        "optimizer": program_fingerprint(update, params, params),
        "record": program_fingerprint(lambda params: _recorded(record, params), params),
    }


def _recorded(record, params):
    entries = {} if record is None else jax.tree.map(jnp.asarray, dict(record(params)))
    if "loss" in entries:
        raise UsageError("record: 'loss' is noted already; use another name")
    return entries


def _placed(shapes: State, layout: Layout) -> State:
    def place(tree, is_parameter):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=layout.sharding(leaf.shape, is_parameter)
            ),
            tree,
        )

    return State(*(place(getattr(shapes, f), f in ("params", "opt_state")) for f in shapes._fields))


def _program(loss, sample, optimizer, record, layout, notes, batch_size, seed):
    """The program `(State, start, stop) -> State` that trains from one step to another.

    It is a loop over stretches that end at a note, round a loop over steps. Both loops' bounds are
    arguments: one compiled program serves any dispatch, so where a fit was cut cannot matter.
    """
    boundaries = jnp.asarray(notes, jnp.int32)

    gradient_of = _gradient_of(loss)

    def one(state, start, stop):
        data_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.seed))[1]

        def train(step, carry):
            params, opt_state, total, bad, first = carry
            batch = layout.draw(sample, jax.random.fold_in(data_key, step), batch_size)
            (value, statistics), gradient = layout.mean(gradient_of(params, batch))
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            params = _with_statistics(optax.apply_updates(params, updates), statistics)
            bad = jnp.where((bad < 0) & ~jnp.isfinite(value), step, bad)
            value = value.astype(total.dtype)
            return params, opt_state, total + value, bad, jnp.where(step == 0, value, first)

        def note(params, history, total, count, row):
            entries = {"loss": total / count} | _recorded(record, params)
            history = {
                field: lax.dynamic_update_index_in_dim(history[field], value, row, 0)
                for field, value in entries.items()
            }
            return history, jnp.zeros_like(total)

        def stretch(carry):
            step, params, opt_state, history, total, bad, first = carry
            row = jnp.searchsorted(boundaries, step, side="right")  # the note that comes next
            end = jnp.minimum(stop, boundaries[row])
            params, opt_state, total, bad, first = lax.fori_loop(
                step, end, train, (params, opt_state, total, bad, first)
            )
            history, total = lax.cond(
                end == boundaries[row],
                lambda: note(params, history, total, end - boundaries[row - 1], row),
                lambda: (history, total),
            )
            return end, params, opt_state, history, total, bad, first

        params, opt_state, history, total, bad, seed_index = state
        _, params, opt_state, history, total, bad, first = lax.while_loop(
            lambda carry: carry[0] < stop,
            stretch,
            (start, params, opt_state, history, total, bad, history["loss"][0]),
        )
        history = history | {"loss": history["loss"].at[0].set(first)}
        # The last update may have spoilt the parameters behind a finite loss. The optimizer's
        # state is not looked at: some hold infinities by design.
        floats = [p for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.inexact)]
        whole = jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in floats]))
        bad = jnp.where((bad < 0) & ~whole, stop - 1, bad)
        return State(params, opt_state, history, total, bad, seed_index)

    return jax.vmap(one, in_axes=(0, None, None))


def _gradient_of(loss):
    """`(params, batch) -> ((loss, statistics or None), gradient)`."""

    def loss_and_statistics(params, batch):
        found = loss(params, batch)
        return found if isinstance(found, tuple) else (found, None)

    return jax.value_and_grad(loss_and_statistics, has_aux=True)


def _with_statistics(params, statistics):
    """The parameters, with the statistics in place of those that are statistics."""
    is_none = lambda node: node is None
    put = lambda new, old: old if new is None else jnp.asarray(new, old.dtype)
    return jax.tree.map(put, statistics, params, is_leaf=is_none)


class _Pace:
    """Decides where dispatches end and when to save; nothing it decides changes a result."""

    def __init__(self, steps_per_dispatch: int | None, checkpoint_every: int | None):
        self._fixed, self._every = steps_per_dispatch, checkpoint_every
        self._count = steps_per_dispatch or 8
        self._began = self._saved = time.monotonic()

    def next_stop(self, step: int, steps: int) -> int:
        self._began, self._step = time.monotonic(), step
        stop = min(step + self._count, steps)
        if self._every is not None:
            stop = min(stop, (step // self._every + 1) * self._every)
        return stop

    def after(self, step: int, interrupted: bool) -> tuple[bool, bool]:
        """Whether to save, and whether to stop, after the dispatch that ended at `step`."""
        now = time.monotonic()
        seconds = max(now - self._began, 1e-6)
        wanted = (step - self._step) * SECONDS_A_DISPATCH / seconds
        count = self._fixed or int(np.clip(wanted, 1, 8 * self._count))
        due = now - self._saved >= SECONDS_BETWEEN_CHECKPOINTS
        choices = agree(np.array([count, due, interrupted]))
        self._count, due = int(choices[0, 0]), bool(choices[0, 1])
        if self._every is not None:
            due = step % self._every == 0
        if due:
            self._saved = now
        return due, bool(choices[:, 2].any())


def _log(run, name, noted, notes, start, stop, bad):
    """Writes the notes of one dispatch: means over seeds of what is one number a seed."""
    end = min([stop, *bad[bad >= 0].tolist()])
    for row in np.flatnonzero((notes > start - (start == 0)) & (notes <= end)):
        scalars = {f: float(np.mean(v[:, row])) for f, v in noted.items() if v.ndim == 2}
        run.log(int(notes[row]), name, scalars)
    run.flush()
