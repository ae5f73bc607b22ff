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

LOGS, WARM_UP, TEST_PIECE = 10, 0.05, 256  # a look costs as much as five steps
IN_THIS_RUN = "a hundredth is within what seeds differ by"
PLATEAU = 1.35  # in units of a guess among the values of the sequence


def tasks(config) -> dict[int, list[Spec]]:
    """What is to be trained, by the number of pairs: linear attention by its state, and mixers."""
    by_state = [Spec("linear", expansion) for expansion in config.expansions]
    chosen = []
    for expansion in config.mixer_expansions:
        chosen += [Spec(name, expansion) for name in config.mixers if name not in model.GATED]
    chosen += [Spec(name, 1) for name in config.mixers if name in model.GATED]
    chosen += [Spec(name, config.mixer_expansions[-1], mlp=True) for name in config.with_mlp]
    found: dict[int, list[Spec]] = {config.task.pairs: by_state}
    found[config.mixer_pairs] = found.get(config.mixer_pairs, []) + chosen
    return {pairs: list(dict.fromkeys(specs)) for pairs, specs in found.items()}


def sampler(config, pairs: int) -> tuple[Callable[[jax.Array], Recall], Recall]:
    """Draws a training sequence, fresh or from a finite set; and the test sequences."""
    task = config.task
    draw = associative_recall(task.vocabulary, task.length, pairs, power=task.power)
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


def fitted(config, spec: Spec, rate: float, pairs: int) -> dict[str, Any]:
    """The arguments of `fit` for one mixer."""
    task = config.task
    sample, test = sampler(config, pairs)
    steps = config.steps if pairs == task.pairs else config.mixer_steps
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, max(1, round(WARM_UP * steps)), steps)
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
        steps=steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(1, steps // LOGS),
        record=lambda params: {"accuracy": model.accuracy(params, spec, test, pieces)},
    )


def recall(run: Run, config) -> list[Claim]:
    """Trains every mixer; claims (a) to (d) and the confound of the MLP."""
    claims = []
    for pairs, specs in tasks(config).items():
        curves, steps = {}, np.zeros(0)
        for spec in specs:
            tried = []
            for rate in config.learning_rates:
                name = f"{spec.name}_pairs_{pairs}_{rate:g}"
                result = fit(run=run, name=name, **fitted(config, spec, rate, pairs))
                tried.append(result.history["accuracy"].T)  # [seeds, logs]
                steps = result.steps
            curves[spec] = max(tried, key=lambda curve: curve[:, -1].mean())
        figures.recall_over_steps(run, curves, steps, pairs)
        figures.recall_by_mixer(run, curves, pairs)
        figures.recall_over_state(run, curves, pairs)
        end = {spec: curve[:, -1] for spec, curve in curves.items()}
        if pairs == config.task.pairs:
            claims += _by_state(config, end, pairs)
        if pairs == config.mixer_pairs:
            claims += _by_mixer(config, end, pairs)
    return claims


def _at_least(
    id: str,
    statement: str,
    better: tuple[Spec, ...],
    worse: tuple[Spec, ...],
    end: dict[Spec, np.ndarray],
    pairs: int,
    margin: float = 0.0,
    because: str = IN_THIS_RUN,
) -> Claim:
    """The best of some recalls at least as well as the best of others, seed by seed.

    Where all of them guess among the values of the sequence, it was not put to the test.
    """
    best = [max(group, key=lambda spec: end[spec].mean()) for group in (better, worse)]
    difference = end[best[0]] - end[best[1]]
    measured = float(np.median(difference))
    shown = dict.fromkeys((*better, *worse))
    note = f"{pairs} pairs; " + ", ".join(f"{spec.name} {end[spec].mean():.3f}" for spec in shown)
    seeds: np.ndarray | None = difference
    if all(end[spec].mean() < PLATEAU / pairs for spec in shown):
        measured, seeds = float("nan"), None
        note += "; all guess among the sequence's values: not put to the test"
    return claim_of(id, f"{statement}: difference of recall", margin, measured, ">=",
                    0.0 if margin else 0.01, because=because, note=note, seeds=seeds)  # fmt: skip


def _by_state(config, end: dict[Spec, np.ndarray], pairs: int) -> list[Claim]:
    small, large = (Spec("linear", n) for n in (config.expansions[0], config.expansions[-1]))
    if small == large:
        return []
    return [
        _at_least(
            "D10",
            "(a) recall by linear attention rises with the state, "
            f"n = {small.expansion} to {large.expansion}",
            (large,),
            (small,),
            end,
            pairs,
            0.05,
            "a twentieth is a clear gain",
        )
    ]


def _by_mixer(config, end: dict[Spec, np.ndarray], pairs: int) -> list[Claim]:
    claims = []

    def compare(id: str, statement: str, better, worse) -> None:
        better, worse = (tuple(spec for spec in group if spec in end) for group in (better, worse))
        if better and worse:
            claims.append(_at_least(id, statement, better, worse, end, pairs))

    for n in config.mixer_expansions:
        for mlp in (False, True):
            at = lambda name, n=n, mlp=mlp: Spec(name, n, mlp)
            linear, softmax, exp = at("linear"), at("softmax"), at("exp")
            tag, said = f"-{n}{'-mlp' * mlp}", f", n = {n}{', with an MLP' * mlp}"
            compare(f"D11{tag}", f"softmax recalls at least as well as linear attention{said}",
                    [softmax], [linear])  # fmt: skip
            compare(f"D12-linear{tag}", "(b) normalised attention recalls at least as well as "
                    f"linear attention{said}", [exp], [linear])  # fmt: skip
            compare(f"D12-softmax{tag}", f"(b) and at most as well as softmax{said}",
                    [softmax], [exp])  # fmt: skip
        compare(f"D12-ssd-{n}", f"(b) and at most as well as SSD, n = {n}", [Spec("ssd", n)],
                [Spec("exp", n)])  # fmt: skip
        compare(f"D14-{n}", "(d) the exponential normaliser recalls at least as well as softplus "
                f"and sigmoid, n = {n}", [Spec("exp", n)],
                [Spec("softplus", n), Spec("sigmoid", n)])  # fmt: skip
    plain, turned = (Spec(name, 1) for name in model.GATED)
    compare("D13", "(c) the reversed gate recalls at least as well as the plain one", [turned],
            [plain])  # fmt: skip
    return claims
