"""Memories that read one stream, without training: outliers, a deep memory, a change of mind."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.memory_models import figures
from experiments.memory_models.common import MIRAS, TITANS
from jattn.mechanisms.layers.norms import unit_norm
from jattn.mechanisms.memory.miras import miras_scan
from jattn.mechanisms.memory.miras_rule import Rule
from jattn.mechanisms.memory.networks import network, network_init
from jattn.mechanisms.memory.neural_memory import neural_memory
from jattn.training import Claim, Run, sweep

LOSSES = {
    "l2": Rule("l2"),
    "Huber, norm": Rule("huber_norm"),
    "Huber": Rule("huber"),
    "l1": Rule("lp", power=1.0),
    "lp, p = 3": Rule("lp", power=3.0),
}


def _side_by_side(x: jax.Array, settings: int) -> jax.Array:
    """A stream `[t, ...]` for every setting: they take the place of heads, `[1, t, settings, ...]`."""  # noqa: E501
    return jnp.repeat(x[None, :, None], settings, 2)


def _unit_keys(key: jax.Array, length: int, dim: int) -> jax.Array:
    return unit_norm(jax.random.normal(key, (length, dim)))


def outliers(run: Run, config) -> list[Claim]:
    """How far a linear memory is from the map it is shown, by the loss it learns with."""
    settings = config.outliers
    rates = jnp.array(settings.rates)

    def final_error(rule, key, value, truth):
        keys, values = (_side_by_side(x, len(rates)) for x in (key, value))
        _, state = miras_scan(
            keys, keys, values,
            params0={"weights": [jnp.zeros((len(rates), *truth.shape))]},
            alpha=jnp.ones(keys.shape[:3]),
            eta=jnp.broadcast_to(rates, keys.shape[:3]),
            apply_fn=network, rule=rule,
        )  # fmt: skip
        error = jnp.linalg.norm(state["weights"][0][0] - truth, axis=(1, 2))
        return jnp.nan_to_num(error / jnp.linalg.norm(truth), nan=jnp.inf)

    def cell(seed):
        of_truth, of_keys, of_noise, of_hits, of_size = jax.random.split(jax.random.key(seed), 5)
        # Values of size one, of the order of the threshold.
        truth = jax.random.normal(of_truth, (settings.dim, settings.dim)) / settings.dim**0.5
        key = _unit_keys(of_keys, settings.length, settings.dim)
        clean = key @ truth + settings.noise * jax.random.normal(of_noise, key.shape)
        hit = jax.random.uniform(of_hits, (settings.length, 1)) < settings.share
        spoilt = clean + hit * settings.outlier * jax.random.normal(of_size, key.shape)
        return {
            f"{name}/{kind}": final_error(rule, key, value, truth)
            for name, rule in LOSSES.items()
            for kind, value in (("clean", clean), ("spoilt", spoilt))
        }

    found = sweep(run, "outliers", cell, _seeds(config, settings))
    best = {}
    for name, errors in found.items():
        best[name] = errors[:, _means(errors, 0).argmin()]
    figures.errors_by_loss(run, best, list(LOSSES))
    mean = {name: float(errors.mean()) for name, errors in best.items()}
    note = (
        f"{settings.seeds} seeds, each loss at its best step size: "
        + ", ".join(f"{name} {mean[f'{name}/spoilt']:.3f}" for name in LOSSES)
        + "; without outliers "
        + ", ".join(f"{mean[f'{name}/clean']:.3f}" for name in LOSSES)
    )
    claim = MIRAS.claim
    return [
        claim("outliers-huber", "10 % outliers: Huber's loss (of the norm) leaves at most 0.3 of "
              "the squared loss's error", 0.3 * mean["l2/spoilt"], mean["Huber, norm/spoilt"],
              "<=", because="it is 0.3 of what the squared loss has in this run", note=note),
        claim("outliers-coordinate", "and by coordinates at most half of it",
              0.5 * mean["l2/spoilt"], mean["Huber/spoilt"], "<=",
              because="it is half of what the squared loss has in this run"),
        claim("outliers-l1", "the l1 loss, which is Huber's with a small threshold, at most as "
              "much as Huber's", mean["Huber, norm/spoilt"], mean["l1/spoilt"], "<=",
              because="it is what Huber's has in this run"),
        claim("outliers-none", "without outliers Huber's loss loses nothing: its error over the "
              "squared loss's", 1.0, mean["Huber, norm/clean"] / mean["l2/clean"], "~=", 0.05,
              because="at 1 nothing is lost"),
        claim("outliers-p3", "p = 3 looks at large errors more than the square: no smaller error",
              mean["l2/spoilt"], min(mean["lp, p = 3/spoilt"], 1e6), ">=",
              because="it is what the square has in this run", note="infinite errors count as 1e6"),
    ]  # fmt: skip


def _predictions(params0: Any, key, value, step_size, forget, momentum, apply_fn):
    """Squared errors `[t - 1, settings]` of predictions made before each update but the first."""
    settings = len(step_size)
    keys, values = (_side_by_side(x, settings) for x in (key, value))
    spread = lambda rate: jnp.broadcast_to(rate, keys.shape[:3])
    together = jax.tree.map(lambda x: jnp.repeat(x[None], settings, 0), params0)
    # The memory after token t is asked for the value of token t + 1.
    out, *_ = neural_memory(
        together, jnp.roll(keys, -1, 1), keys, values,
        spread(step_size), spread(forget), spread(momentum), apply_fn=apply_fn,
    )  # fmt: skip
    return ((out[0, :-1] - values[0, 1:]) ** 2).sum(-1)


def _grid(*axes) -> list[jax.Array]:
    return [jnp.asarray(x.ravel()) for x in np.meshgrid(*map(np.asarray, axes), indexing="ij")]


def _means(errors: np.ndarray, axes) -> np.ndarray:
    """Means of errors, those of memories that diverged included."""
    with np.errstate(over="ignore"):
        return errors.astype(np.float64).mean(axes)


def _seeds(config, settings) -> list[np.int32]:
    return [np.int32(config.seed + seed) for seed in range(settings.seeds)]


def deep(run: Run, config) -> list[Claim]:
    """A map that no matrix fits, learned by a matrix and by an MLP."""
    settings = config.deep
    step_size, momentum = _grid(settings.rates, settings.momenta)
    # The zoo's networks: (depth, whether there is a residual and a norm).
    memories = {"linear": (1, False), "MLP": (2, False), "norm": (2, True)}

    def cell(seed):
        of_inner, of_outer, of_keys, of_memory = jax.random.split(jax.random.key(seed), 4)
        inner = 1.5 * jax.random.normal(of_inner, (settings.dim, 2 * settings.dim))
        outer = jax.random.normal(of_outer, (2 * settings.dim, settings.dim))
        outer = outer / (2 * settings.dim) ** 0.5
        key = _unit_keys(of_keys, settings.length, settings.dim)
        value = jnp.abs(2 * key @ inner) @ outer
        found = {}
        for name, (depth, norm) in memories.items():
            params0 = network_init(of_memory, settings.dim, depth=depth, residual_norm=norm)
            error = _predictions(params0, key, value, step_size, 0.0, momentum, network)
            blocks = error[: len(error) // settings.block * settings.block]
            found[name] = blocks.reshape(-1, settings.block, len(step_size)).mean(1)
        return {
            name: jnp.nan_to_num(error / (value**2).sum(-1).mean(), nan=jnp.inf)
            for name, error in found.items()
        }

    found = sweep(run, "deep", cell, _seeds(config, settings))
    last = max(1, settings.tail // settings.block)
    curves, end = {}, {}
    for name, errors in found.items():  # [seeds, blocks, settings]
        at = _means(errors[:, -last:], (0, 1))
        curves[name], end[name] = errors[..., np.argmin(at)], float(at.min())
    figures.deep_and_linear(run, curves, settings.block)
    note = (
        f"relative squared error of predictions over the last {settings.tail} of "
        f"{settings.length} tokens, {settings.seeds} seeds, best step size and momentum of each: "
        + ", ".join(f"{name} {error:.3f}" for name, error in end.items())
    )
    return [
        TITANS.claim(
            "deep",
            "the zoo's memory of two layers, the better one, leaves at most 0.3 of a matrix's "
            "error on a map that is not linear",
            0.3 * end["linear"],
            min(end["MLP"], end["norm"]),
            "<=",
            where="section 3.1",
            because="it is 0.3 of what a matrix has in this run",
            note=note,
        )
    ]


def forgetting(run: Run, config) -> list[Claim]:
    """A linear map that changes its sign midway, with and without forgetting."""
    settings = config.forgetting
    rates = _grid(settings.rates, settings.momenta)

    def cell(seed):
        of_truth, of_keys = jax.random.split(jax.random.key(seed))
        truth = jax.random.normal(of_truth, (settings.dim, settings.dim))
        key = _unit_keys(of_keys, settings.length, settings.dim)
        sign = jnp.where(jnp.arange(settings.length) < settings.flip, 1, -1)
        value = sign[:, None] * (key @ truth)
        params0 = {"weights": [jnp.zeros_like(truth)]}
        run_one = functools.partial(_predictions, params0, key, value)
        size = (value**2).sum(-1).mean()
        errors = [run_one(rates[0], a, rates[1], network) / size for a in settings.forget]
        return {"error": jnp.nan_to_num(jnp.stack(errors), nan=jnp.inf)}

    error = sweep(run, "forgetting", cell, _seeds(config, settings))["error"]
    # [seeds, forget, tokens - 1, settings]; entry t is of the prediction for token t + 1.
    after = slice(settings.flip - 1, settings.flip - 1 + settings.tail)
    at = _means(error[:, :, after], (0, 2))
    best = at.argmin(-1)
    curves = {a: error[:, i, :, best[i]].mean(0) for i, a in enumerate(settings.forget)}
    figures.change_of_mind(run, curves, settings.flip)
    end = {a: float(at[i, best[i]]) for i, a in enumerate(settings.forget)}
    note = (
        f"{settings.seeds} seeds, {settings.tail} tokens from the change on, best step size and "
        "momentum of each: " + ", ".join(f"a = {a:g} {end[a]:.3f}" for a in end)
    )
    none, some = settings.forget[0], settings.forget[1]
    return [
        TITANS.claim(
            "forgetting",
            f"forgetting a = {some:g} leaves at most 0.85 of the error of a = {none:g} after a "
            "change",
            0.85 * end[none],
            end[some],
            "<=",
            where="section 3.1",
            because=f"it is 0.85 of what a = {none:g} has in this run",
            note=note,
        )
    ]
