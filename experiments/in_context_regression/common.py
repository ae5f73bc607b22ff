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
    clip: float = 0.0,
    settle: bool = False,
    **problem: Any,
) -> Trained:
    """Trains `config.seeds` layers on one problem; `problem` overrides the sampler's arguments.

    Gradients are clipped to the norm `clip`, if any; `settle` lets the learning rate fall to a
    hundredth over the last third.
    """
    problem = problem_of(config) | problem
    dim, responses = problem["dim"], len(problem.get("tasks") or [0])
    weights = layer.activation_weights(activation, train_length=problem["length"])

    def record(params):
        key_query, output_value = layer.circuits(params)
        return {"key_query": key_query, "output_value": output_value}

    optimizers = {"adam": optax.adam, "sgd": optax.sgd}
    rate = config.learning_rate
    if settle:
        rate = optax.exponential_decay(rate, steps - 2 * steps // 3, 0.01, 2 * steps // 3)
    optimizer = optimizers[config.optimizer](rate)
    if clip:
        optimizer = optax.chain(optax.clip_by_global_norm(clip), optimizer)
    result = fit(
        partial(layer.init, heads=heads, dim=dim, responses=responses, scheme=config.init),
        lambda params, prompt: layer.squared_error(params, prompt, weights),
        linear_regression(**problem),
        optimizer,
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
    """Test risk of `predict(prompts) -> [..., b, n]` at each prompt length, `[lengths, ...]`."""
    return batch_risks(run, config, name, predict, lengths=lengths, **problem).mean(0)


def batch_risks(
    run: Run,
    config,
    name: str,
    predict: Callable[[Any], jax.Array],
    *,
    lengths: Sequence[int] | None = None,
    **problem: Any,
) -> np.ndarray:
    """As `risks`, of each batch of test prompts by itself, `[batches, lengths, ...]`.

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
            step, each = jax.jit(one_batch), []
            for index in range(batches):
                each.append(np.asarray(step(index), np.float64))
                advance(1)
        return {"risk": np.stack(each)}

    return run.cached(f"batch_risk_{name}", compute)["risk"]


def layer_risks(run, config, name, trained: Trained, *, activation="softmax", **options):
    """Test risk of trained layers, `[lengths, seeds]`."""
    predict = predictor(config, trained, activation, **options)
    return risks(run, config, name, predict, **options)


def predictor(config, trained: Trained, activation="softmax", **options):
    """`prompts -> [seeds, b, n]` of trained layers."""
    length = options.get("length", config.length)
    weights = layer.activation_weights(activation, train_length=length)
    return lambda prompts: jax.vmap(lambda p: layer.predict(p, prompts, weights))(trained.params)


class Paired(NamedTuple):
    """Risks of trained layers, by the distance to an estimator on the same prompts."""

    risk: np.ndarray  # [seeds]
    error: np.ndarray  # [seeds], of one standard deviation


def paired_risks(
    run: Run,
    config,
    name: str,
    trained: Trained,
    estimator: Callable[[Any], jax.Array],
    closed_form: float,
    *,
    activation: str = "softmax",
    **options: Any,
) -> Paired:
    """The closed form of an estimator's risk plus what a layer loses to it, prompt by prompt.

    The noise that prompts bring to both cancels: the standard error is a fraction of a risk's own.

    Args:
        run, config, name, trained: of the layers.
        estimator: one prompt to its prediction `[n]`, or to those of several `[k, n]`, each of the
            same risk: a layer is compared with the nearest.
        closed_form: that risk.
        activation: of the layers.
        options: of the problem, as `risks` takes them; one length.
    """
    predict = predictor(config, trained, activation, **options)
    layers = batch_risks(run, config, name, predict, **options)[:, -1]
    each = jax.vmap(estimator, out_axes=-2)
    ideal = batch_risks(run, config, f"{name}_estimator", each, **options)[:, -1]
    return paired(layers, ideal, closed_form)


def paired(layers: np.ndarray, ideal: np.ndarray, closed_form: float) -> Paired:
    """As `paired_risks`, of risks by batch `[batches, seeds]` and `[batches]` or `[batches, k]`."""
    excess = layers[:, :, None] - ideal.reshape(len(ideal), 1, -1)
    nearest = excess.std(0).argmin(-1)
    excess = excess[:, np.arange(layers.shape[1]), nearest]
    deviation = excess.std(0, ddof=1) if len(excess) > 1 else np.zeros(excess.shape[1])
    return Paired(closed_form + excess.mean(0), deviation / len(excess) ** 0.5)


def risk_claim(
    id, statement, predicted, found: Paired, *, tolerance=0.003, chosen=None, note="", **source
) -> Claim:
    """A claim on a risk; no tolerance is below three standard errors."""
    error = float(np.median(found.error))
    told = f"paired with the estimator, standard error {error:.2g}"
    return claim_of(
        id,
        statement,
        predicted,
        found.risk,
        "~=",
        max(tolerance, 3 * error),
        chosen=chosen,
        derived=True,
        note="; ".join(filter(None, (told, note))),
        **source,
    )


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
    id, statement, predicted, values, relation, tolerance, *, chosen=None, why="", note="", **source
) -> Claim:
    """A claim about the median over seeds (those chosen), or about one number.

    `why` explains, in the tables, a claim that does not hold; `source` is that of `Paper.source`.
    """
    seeds, of_seeds = None, ""
    measured = values
    if np.ndim(values):
        chosen = np.ones(len(values), bool) if chosen is None else chosen
        measured, of_seeds = median(values, chosen)
        seeds = np.asarray(values)[chosen]
    note = "; ".join(filter(None, (of_seeds, note)))
    claim = PAPER.claim(
        id, statement, predicted, measured, relation, tolerance, note=note, seeds=seeds, **source
    )
    if claim.holds or not why:
        return claim
    return dataclasses.replace(claim, note="; ".join(filter(None, (note, why))))
