"""Training layers, testing them, and stating claims about medians over seeds."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jattn.tasks.linear_regression import linear_regression
from jattn.theory import icl_measures
from jattn.theory import in_context_attention as layer
from jattn.training import Claim, Paper, Run, fit

PAPER = Paper("arXiv 2503.12734", "In-context linear regression demystified")
TEST_SEED = 2**20  # far from the training seeds
TEST_BATCH = 1_000


class Trained(NamedTuple):
    """Layers trained from several seeds, as NumPy arrays with leading axis `seeds`."""

    heads: int
    params: layer.Parameters
    steps: np.ndarray  # [logs]
    loss: np.ndarray  # [logs, seeds]
    key_query: np.ndarray  # [logs, seeds, h, D, D]
    output_value: np.ndarray  # [logs, seeds, h, n, D]
    omega: np.ndarray  # [logs, seeds, h]
    mu: np.ndarray  # [logs, seeds, h, n]

    @property
    def paired(self) -> np.ndarray:
        """Seeds whose active heads end with both signs, for every response `[seeds]`."""
        return np.all(icl_measures.has_both_signs(np.moveaxis(self.mu[-1], -1, 0)), axis=0)


def train(
    run: Run,
    config,
    name: str,
    *,
    heads: int,
    steps: int,
    activation: str = "softmax",
    **problem: Any,
) -> Trained:
    """Trains `config.seeds` layers on one problem; `problem` overrides the sampler's arguments."""
    problem = problem_of(config) | problem
    dim, responses = problem["dim"], len(problem.get("tasks") or [0])
    weights = layer.activation_weights(activation, train_length=problem["length"])

    def record(params):
        key_query, output_value = layer.circuits(params)
        return {"key_query": key_query, "output_value": output_value}

    optimizers = {"adam": optax.adam, "sgd": optax.sgd}
    result = fit(
        partial(layer.init, heads=heads, dim=dim, responses=responses, scheme=config.init),
        lambda params, prompt: layer.squared_error(params, prompt, weights),
        linear_regression(**problem),
        optimizers[config.optimizer](config.learning_rate),
        run=run,
        name=name,
        seeds=config.seeds,
        steps=steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=config.log_every,
        record=record,
    )
    history = result.history
    return Trained(
        heads=heads,
        params=result.params,
        steps=result.steps,
        loss=history["loss"],
        key_query=history["key_query"],
        output_value=history["output_value"],
        omega=icl_measures.key_query_scale(history["key_query"], dim),
        mu=icl_measures.output_scale(history["output_value"], dim),
    )


def risks(
    run: Run,
    config,
    name: str,
    predict: Callable[[Any], jax.Array],
    *,
    lengths: Sequence[int] | None = None,
    **problem: Any,
) -> np.ndarray:
    """Test risk of `predict(prompts) -> [..., b, n]` at each prompt length, `[lengths, ...]`.

    All lengths, and all predictors with the same problem, see the same prompts, cut short.
    """
    settings: dict[str, Any] = problem_of(config) | problem
    lengths = [settings["length"]] if lengths is None else list(lengths)
    settings["length"] = max(lengths)
    sample = linear_regression(**settings)
    batches = -(-config.test_size // TEST_BATCH)

    def one_batch(index):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(TEST_SEED), index), TEST_BATCH)
        prompts = jax.vmap(sample)(keys)
        errors = []
        for length in lengths:
            short = prompts._replace(
                inputs=prompts.inputs[:, :length], responses=prompts.responses[:, :length]
            )
            errors.append(jnp.mean((predict(short) - prompts.target) ** 2, axis=(-2, -1)))
        return jnp.stack(errors)

    def compute():
        with run.progress(f"testing {name}", batches) as advance:
            step, total = jax.jit(one_batch), 0.0
            for index in range(batches):
                total = total + np.asarray(step(index), np.float64)
                advance(1)
        return {"risk": total / batches}

    return run.cached(f"risk_{name}", compute)["risk"]


def layer_risks(run, config, name, trained: Trained, *, activation="softmax", **options):
    """Test risk of trained layers, `[lengths, seeds]`."""
    length = options.get("length", config.length)
    weights = layer.activation_weights(activation, train_length=length)
    params = trained.params

    def predict(prompts):
        return jax.vmap(lambda p: layer.predict(p, prompts, weights))(params)

    return risks(run, config, name, predict, **options)


def problem_of(config) -> dict[str, Any]:
    """The sizes of the regression problem, as samplers and closed forms take them."""
    return dict(dim=config.dim, length=config.length, noise_variance=config.noise_variance)


def median(values: np.ndarray, chosen: np.ndarray) -> tuple[float, str]:
    """Median over the chosen seeds (NaN if none), and a note of their number and range."""
    kept = np.asarray(values, np.float64)[chosen]
    if not kept.size:
        return float("nan"), "no seed qualifies"
    return float(np.median(kept)), f"{kept.size} seeds, {kept.min():.4g} to {kept.max():.4g}"


def claim_of(
    id, statement, predicted, values, relation, tolerance, *, chosen=None, why="", **source
) -> Claim:
    """A claim about the median over seeds (those chosen), or about one number.

    `why` explains, in the tables, a claim that does not hold; `source` is that of `Paper.source`.
    """
    note, seeds = "", None
    measured = values
    if np.ndim(values):
        chosen = np.ones(len(values), bool) if chosen is None else chosen
        measured, note = median(values, chosen)
        seeds = np.asarray(values)[chosen]
    claim = PAPER.claim(
        id, statement, predicted, measured, relation, tolerance, note=note, seeds=seeds, **source
    )
    if claim.holds or not why:
        return claim
    return dataclasses.replace(claim, note="; ".join(filter(None, (note, why))))
