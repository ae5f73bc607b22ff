"""Exact fits of random-feature models on one draw of the data, as cells of a sweep."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jattn.tasks.random_feature_targets import directions, sphere_tokens, target
from jattn.theory.kernel_ridge import blocked_gram, validated_kernel_ridge
from jattn.theory.random_feature_kernels import attention_kernel, network_kernel
from jattn.theory.random_features import attention_features, interaction_matrix, network_features
from jattn.training import Claim, Paper, Run, sweep

PAPER = Paper("arXiv 2307.11353", "What can a single attention layer learn?")
MODELS = ("rfa", "brfa", "rfmlp", "rfa_kernel", "brfa_kernel", "rfmlp_kernel")


class Cell(NamedTuple):
    """One point of a sweep.

    Attributes:
        seed: of the data, the target's directions and the frozen weights.
        bias_scale: mean of the query-key matrices, in identities.
        keys: number of keys N that count.
    """

    seed: Any
    bias_scale: Any
    keys: Any


class Problem(NamedTuple):
    """What all cells of a sweep share, being shapes.

    Attributes:
        model: one of `MODELS`; `"rfa"` and `"brfa"` are the same, the cell's bias counts.
        dim: d.
        keys: the largest number of keys.
        heads: numbers of heads, rising; a smaller layer is the beginning of a larger one.
        sizes: training set sizes, rising; a smaller set is the beginning of a larger one.
        targets: names of the targets.
    """

    model: str
    dim: int
    keys: int
    heads: tuple[int, ...]
    sizes: tuple[int, ...]
    targets: tuple[str, ...]


def solve(config, problem: Problem, cell: Cell) -> dict[str, jax.Array]:
    """Relative errors of all targets at all sizes and head counts, for one cell.

    Returns:
        `error` = E (f - f*)^2 / Var f* at test points, `train_error`, and `ridge`, the chosen
        penalty, each `[heads, sizes, targets]` (one head count for a kernel).
    """
    largest = problem.sizes[-1]
    base = jax.random.fold_in(jax.random.key(config.seed), cell.seed)
    data_key, direction_key, weight_key = jax.random.split(base, 3)
    tokens = sphere_tokens(data_key, largest + config.test_size, problem.keys, problem.dim)
    mask = jnp.broadcast_to(jnp.arange(problem.keys) < cell.keys, tokens.keys.shape[:2])
    drawn = directions(direction_key, problem.dim)
    y = jnp.stack([target(name)(tokens, drawn, mask) for name in problem.targets], axis=-1)
    y = y.astype(jnp.result_type(float))
    test = y[largest:]

    def fits(gram):
        fit = validated_kernel_ridge(
            gram[:largest], gram[largest:], y[:largest], config.ridge_grid, sizes=problem.sizes
        )
        error = jnp.mean((fit.predictions - test) ** 2, axis=1) / jnp.var(test, axis=0)
        train = [
            jnp.mean((fitted[:size] - y[:size]) ** 2, axis=0) / jnp.var(y[:size], axis=0)
            for fitted, size in zip(fit.fitted, problem.sizes, strict=True)
        ]
        return {"error": error, "train_error": jnp.stack(train), "ridge": fit.penalty}

    grams = _grams(config, problem, cell, tokens, mask, weight_key)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[fits(gram) for gram in grams])


def frozen_features(config, model: str, tokens, mask, key, bias_scale):
    """`indices -> [points, features]` of a model's heads, or of a network's units.

    Every head and unit has its own key, whatever block it is computed in.
    """
    keys, dim = tokens.keys.shape[1:]
    keys_of = jax.vmap(lambda index: jax.random.fold_in(key, index))

    def heads(indices):
        draw = lambda head: interaction_matrix(head, dim, bias_scale)
        weights = jax.vmap(draw)(keys_of(indices))
        features = attention_features(
            tokens.query, tokens.keys, weights, mask=mask, activation=config.activation
        )
        return features.reshape(len(features), -1)

    def units(indices):
        draw = lambda unit: jax.random.normal(unit, ((keys + 1) * dim + 1,), jnp.float32)
        return network_features(
            tokens.query, tokens.keys, jax.vmap(draw)(keys_of(indices)), mask=mask
        )

    return units if model == "rfmlp" else heads


def limit_kernel(config, model: str, tokens, columns: int):
    """The kernel of an infinitely wide model between all points and the first `columns`."""
    wide = jnp.result_type(float)
    query, keys = tokens.query.astype(wide), tokens.keys.astype(wide)
    some = query[:columns], keys[:columns]
    if model == "rfmlp_kernel":
        return network_kernel(query, keys, *some)
    scale = config.bias_scale if model == "brfa_kernel" else 0.0
    return attention_kernel(query, keys, *some, bias_scale=scale)


def _grams(config, problem, cell, tokens, mask, key):
    """Gram matrices `[all points, training points]`, one for each head count."""
    columns = problem.sizes[-1]
    if problem.model.endswith("_kernel"):
        return [limit_kernel(config, problem.model, tokens, columns)]
    features = frozen_features(config, problem.model, tokens, mask, key, cell.bias_scale)
    width = problem.dim + 1
    # A network gets as many trained weights as the heads have: d + 1 for each head.
    per_head = width if problem.model == "rfmlp" else 1
    block = max(config.feature_chunk * per_head // width, 1)
    total, start, grams = 0.0, 0, []
    for count in problem.heads:
        stop = count * per_head
        total = total + blocked_gram(features, start, stop, block=block, columns=columns)
        grams.append(total / stop)
        start = stop
    return grams


def precision(run: Run):
    """Double precision on a CPU; single on accelerators, whose factorisations have no other."""
    devices = run.parallel.device_mesh().devices
    return jax.enable_x64(devices.flat[0].platform == "cpu")


def errors(
    run: Run, config, name: str, problem: Problem, cells: Sequence[Cell]
) -> dict[str, np.ndarray]:
    """`solve` for all cells, spread over devices: `[cells, ...]`."""
    with precision(run):
        result = sweep(run, name, lambda cell: solve(config, problem, cell), cells)
    for index, cell in enumerate(cells):
        for head, size, which in np.ndindex(result["error"].shape[1:]):
            about = f"bias {cell.bias_scale}, {cell.keys} keys, seed {cell.seed}"
            if len(problem.heads) > 1:
                about = f"{problem.heads[head]} heads, {about}"
            scalars = {field: values[index, head, size, which] for field, values in result.items()}
            run.log(problem.sizes[size], f"{name}, {problem.targets[which]}, {about}", scalars)
    run.flush()
    return result


def attention_sweep(run: Run, config, name: str, problem: Problem, biases: Sequence[float]):
    """Errors of attention with several bias scales, on the same data: `{bias: errors}`.

    Each is `[seeds, heads, sizes, targets]`.
    """
    cells = [Cell(seed, bias, problem.keys) for bias in biases for seed in range(config.seeds)]
    result = errors(run, config, name, problem, cells)["error"]
    return dict(
        zip(biases, result.reshape(len(biases), config.seeds, *result.shape[1:]), strict=True)
    )


def interval(values: np.ndarray) -> tuple[float, str]:
    """Mean over seeds, and a note of its 95 % confidence interval (Student's t)."""
    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return mean, "1 seed"
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5)
    return mean, f"{count} seeds, 95 % interval {mean - half:.3g} to {mean + half:.3g}"


def ratio_claim(id, statement, predicted, above, below, relation, *, remark="", **source) -> Claim:
    """A claim about the ratio of two mean errors, each `[seeds]`, on the same data."""
    each = above / below
    note = f"{np.mean(above):.3g} / {np.mean(below):.3g}; "
    note += f"{len(each)} seeds, {each.min():.3g} to {each.max():.3g}"
    note = "; ".join(filter(None, (note, remark)))
    ratio = float(np.mean(above) / np.mean(below))
    return PAPER.claim(id, statement, predicted, ratio, relation, note=note, seeds=each, **source)
