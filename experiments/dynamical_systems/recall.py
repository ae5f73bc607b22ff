"""Mixers trained on associative recall, in the same model: D10 to D15."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from experiments.dynamical_systems import figures, model
from experiments.dynamical_systems.common import claim_of
from experiments.dynamical_systems.model import Spec
from jattn.tasks.associative_recall import Recall, associative_recall
from jattn.training import Claim, Run, fit

SATURATED, LOGS, WARM_UP, TEST_PIECE = 0.98, 20, 0.05, 256
IN_THIS_RUN = "it is what the other has in this run"
PLATEAU = 1.35  # in units of a guess among the values of the sequence


def specs(config) -> list[Spec]:
    """What is to be trained: linear attention at every expansion, the others at the middle one."""
    middle = config.expansions[len(config.expansions) // 2]
    chosen = [Spec("linear", expansion) for expansion in config.expansions]
    chosen += [Spec(name, 1 if name in model.GATED else middle) for name in config.mixers]
    return chosen + [Spec(name, middle, mlp=True) for name in config.with_mlp]


def sampler(config) -> tuple[Callable[[jax.Array], Recall], Recall]:
    """Draws a training sequence, fresh or from a finite set; and the test sequences."""
    task = config.task
    draw = associative_recall(task.vocabulary, task.length, task.pairs, power=task.power)
    of_training, of_test = jax.random.split(jax.random.key(config.seed))
    test = jax.vmap(draw)(jax.random.split(of_test, task.test_size))
    if not task.train_size:
        return draw, test

    def from_set(key: jax.Array) -> Recall:
        # A sequence of the set is made again from its number: the set takes no memory.
        return draw(
            jax.random.fold_in(of_training, jax.random.randint(key, (), 0, task.train_size))
        )

    return from_set, test


def fitted(config, spec: Spec, rate: float) -> dict[str, Any]:
    """The arguments of `fit` for one mixer."""
    task = config.task
    sample, test = sampler(config)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, rate, max(1, round(WARM_UP * config.steps)), config.steps
    )
    sizes = dict(
        vocabulary=task.vocabulary, length=task.length, dim=config.dim, layers=config.layers
    )
    pieces = max(1, task.test_size // TEST_PIECE)
    return dict(
        init=lambda key: model.init(key, spec, **sizes),
        loss=lambda params, batch: model.loss(params, spec, batch),
        sample=sample,
        optimizer=optax.adamw(schedule, weight_decay=config.weight_decay),
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(1, config.steps // LOGS),
        record=lambda params: {"accuracy": model.accuracy(params, spec, test, pieces)},
    )


def recall(run: Run, config) -> list[Claim]:
    """Trains every mixer; claims (a) to (d) and the confound of the MLP."""
    curves, steps = {}, np.zeros(0)
    for spec in specs(config):
        tried = []
        for rate in config.learning_rates:
            result = fit(run=run, name=f"{spec.name}_{rate:g}", **fitted(config, spec, rate))
            tried.append(result.history["accuracy"].T)  # [seeds, logs]
            steps = result.steps
        curves[spec] = max(tried, key=lambda curve: curve[:, -1].mean())
    figures.recall_over_steps(run, curves, steps, 1 / config.task.pairs)
    figures.recall_by_mixer(run, curves, 1 / config.task.pairs)
    end = {spec: float(curve[:, -1].mean()) for spec, curve in curves.items()}
    return _claims(config, end)


def _claims(config, end: dict[Spec, float]) -> list[Claim]:
    middle = config.expansions[len(config.expansions) // 2]
    small, large = config.expansions[0], config.expansions[-1]
    seeds = f"{config.seeds} seeds, {config.steps} steps"
    low, high = end[Spec("linear", small)], end[Spec("linear", large)]

    def note(*chosen: Spec) -> str:
        found = ", ".join(f"{spec.name} {end[spec]:.3f}" for spec in chosen)
        stuck = [spec.name for spec in chosen if end[spec] < PLATEAU / config.task.pairs]
        if not stuck:
            return f"{found}; {seeds}"
        return (
            f"{found}; {seeds}; so few steps leave {', '.join(stuck)} on the plateau of guessing "
            "among the sequence's values, where the claim is not put to the test"
        )

    def at(name: str, mlp: bool = False) -> Spec:
        return Spec(name, 1 if name in model.GATED else middle, mlp)

    linear = Spec("linear", small), Spec("linear", large)
    claims = []
    if len(config.expansions) > 1:
        rise = high - low if low < SATURATED else 1.0
        claims.append(
            claim_of("D10", f"(a) recall by linear attention rises with the state, n = {small} to "
                     f"{large} (1 if already solved)", 0.05, rise, ">=",
                     because="a twentieth is a clear gain", note=note(*linear))
        )  # fmt: skip
    if at("softmax") in end:
        claims.append(
            claim_of("D11", f"softmax recalls at least as well as linear attention, n = {small}",
                     low, end[at("softmax")], ">=", because=IN_THIS_RUN,
                     note=note(at("softmax"), linear[0]))
        )  # fmt: skip
    for mlp in (False, True):
        three = [at(name, mlp) for name in ("linear", "exp", "softmax")]
        if all(spec in end for spec in three):
            below, between, above = (end[spec] for spec in three)
            block = "with an MLP" if mlp else "without an MLP"
            claims += [
                claim_of(f"D12-linear{'-mlp' * mlp}", f"(b) normalised attention recalls at least "
                         f"as well as linear attention, n = {middle}, {block}", below, between,
                         ">=", 0.01, because=IN_THIS_RUN, note=note(*three)),
                claim_of(f"D12-softmax{'-mlp' * mlp}", "(b) and at most as well as softmax, "
                         f"{block}", above, between, "<=", 0.01,
                         because=IN_THIS_RUN, note=note(*three)),
            ]  # fmt: skip
    if at("ssd") in end and at("exp") in end:
        claims.append(
            claim_of("D12-ssd", "(b) and at most as well as SSD", end[at("ssd")], end[at("exp")],
                     "<=", 0.01, because=IN_THIS_RUN, note=note(at("ssd"), at("exp")))
        )  # fmt: skip
    gated = [at(name) for name in model.GATED]
    if all(spec in end for spec in gated):
        claims.append(
            claim_of("D13", "(c) the reversed gate recalls at least as well as the plain one",
                     end[gated[0]], end[gated[1]], ">=", 0.01, because=IN_THIS_RUN,
                     note=note(*gated))
        )  # fmt: skip
    others = [at(name) for name in ("softplus", "sigmoid") if at(name) in end]
    if at("exp") in end and others:
        claims.append(
            claim_of("D14", "(d) the exponential normaliser recalls at least as well as softplus "
                     "and sigmoid", max(end[spec] for spec in others), end[at("exp")], ">=", 0.01,
                     because=IN_THIS_RUN, note=note(at("exp"), *others))
        )  # fmt: skip
    return claims
