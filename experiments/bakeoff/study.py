"""Training every mechanism on every task, and what came of it."""

import time
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

import jattn
from configs.bakeoff import TASKS
from experiments.bakeoff.models import matched_model
from experiments.functional import Model, optimizer, parse_mechanisms
from experiments.token_tasks import Example, Task, loss_in_training, make_task, quality
from jattn.training import Interrupted, Run, UsageError, fit


class Row(NamedTuple):
    """One mechanism's results.

    Attributes:
        mechanism: its name.
        parameters: of the text model.
        flops: of a training step, a token.
        milliseconds: of a training step on text, one seed.
        quality: by task, `[seeds]`.
        stretched: bits a byte at multiples of the text's length, `[stretches, seeds]`.
        failed: why there is nothing, or "".
    """

    mechanism: str
    parameters: int
    flops: float
    milliseconds: float
    quality: dict[str, np.ndarray]
    stretched: np.ndarray
    failed: str


def chosen_mechanisms(config) -> list[str]:
    """The entries asked for, all of which exist and are causal.

    Raises:
        UsageError: one does not.
    """
    if config.mechanisms == "all":
        return [n for n in jattn.zoo.names() if jattn.zoo.info(n).causal]
    entries = [entry.strip() for entry in config.mechanisms.split(",")]
    for entry in entries:
        for name, options in parse_mechanisms(entry):
            try:
                spec, known = jattn.zoo.info(name), jattn.zoo.options(name)
            except ValueError as error:
                raise UsageError(f"mechanisms: {error}") from None
            if not spec.causal:
                raise UsageError(f"mechanisms: {name} has no causal form")
            for option in options:
                if option not in known:
                    raise UsageError(
                        f"mechanisms: {name} has no option {option!r}; "
                        f"it has {', '.join(known) or 'none'}"
                    )
    if len(set(entries)) < len(entries):
        raise UsageError("mechanisms: expected each one once")
    return entries


def chosen_tasks(config) -> list[Task]:
    """The tasks asked for.

    Raises:
        UsageError: there is no such task, or its sizes do not fit.
    """
    names = [name.strip() for name in config.tasks.split(",")]
    for name in names:
        if name not in TASKS:
            raise UsageError(f"tasks: expected any of {', '.join(TASKS)}, got {name!r}")
    try:
        return [make_task(name, config) for name in names]
    except ValueError as error:
        raise UsageError(f"tasks: {error}") from None


def compare(run: Run, config) -> list[Row]:
    """Trains everything; a mechanism that fails is a row that says why."""
    tasks = chosen_tasks(config)
    rows = []
    for entry in chosen_mechanisms(config):
        try:
            rows.append(_row(run, config, entry, tasks))
        except (Interrupted, UsageError):  # Not the mechanism's fault.
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            run.note(f"{entry}: failed: {reason}")
            rows.append(Row(entry, 0, np.nan, np.nan, {}, np.zeros((0, config.seeds)), reason))
    return rows


def _row(run: Run, config, entry: str, tasks: list[Task]) -> Row:
    mechanisms = parse_mechanisms(entry)
    found: dict[str, np.ndarray] = {}
    stretched = np.zeros((0, config.seeds))
    parameters, flops, milliseconds = 0, np.nan, np.nan
    for task in tasks:
        model = matched_model(mechanisms, task.vocabulary, _reach(task, config), config)
        params = _train(run, config, entry, model, task)
        lengths = [task.length]
        if task.name == "text":
            lengths = [task.length * n for n in config.stretches]
            parameters = model.parameters
        tested = run.cached(
            f"{entry}_{task.name}",
            lambda task=task, model=model, params=params, lengths=lengths: {
                "quality": np.stack([_test(config, model, task, params, n) for n in lengths])
            },
        )["quality"]
        found[task.name] = tested[0]
        if task.name == "text":
            stretched = tested
            cost = run.cached(f"{entry}_cost", lambda m=model, t=task: _cost(config, m, t))
            flops, milliseconds = float(cost["flops"]), float(cost["milliseconds"])
    return Row(entry, parameters, flops, milliseconds, found, stretched, "")


def _reach(task: Task, config) -> int:
    return task.length * max(config.stretches) if task.name == "text" else task.length


def _train(run: Run, config, entry: str, model: Model, task: Task) -> Any:
    return fit(
        model.init,
        lambda params, batch: loss_in_training(model, params, batch),
        task.sample,
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=f"{entry.replace(':', '_')}_{task.name}",
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        # All mechanisms meet the same data.
        seed=config.seed + zlib.crc32(task.name.encode()) % 1_000,
        log_every=max(config.steps // 20, 1),
    ).params


def _test(config, model: Model, task: Task, params: Any, length: int) -> np.ndarray:
    """Quality of each seed on sequences that are the same for all; as many tokens at any length."""
    count = max(config.test_size * task.length // length, 4)
    keys = jax.random.split(jax.random.key(config.seed + 1_000_000), count)
    batch = jax.vmap(task.test(length))(keys)

    @jax.jit
    def measure(params, batch):
        # One seed at a time, in pieces: a long row of scores is large.
        pieces = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), batch)
        one = lambda p: jax.lax.map(lambda b: quality(model, task.measure, p, b), pieces).mean()
        return jax.lax.map(one, params)

    whole = count - count % 4
    return np.asarray(measure(params, jax.tree.map(lambda x: x[:whole], batch)))


def _cost(config, model: Model, task: Task) -> dict[str, float]:
    """FLOPs of a training step by the compiler's count, a token; and its time, the least of 5."""
    keys = jax.random.split(jax.random.key(0), config.batch_size)
    batch: Example = jax.vmap(task.sample)(keys)
    params = model.init(jax.random.key(0))
    step = jax.value_and_grad(lambda p, b: loss_in_training(model, p, b), has_aux=True)
    compiled = jax.jit(step).lower(params, batch).compile()
    analysis = compiled.cost_analysis() or {}
    times = []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(compiled(params, batch))
        times.append(time.perf_counter() - start)
    tokens = config.batch_size * task.length
    return {
        "flops": analysis.get("flops", np.nan) / tokens,
        "milliseconds": 1e3 * min(times[1:]),
    }
