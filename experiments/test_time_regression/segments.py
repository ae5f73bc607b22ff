"""Laws that are linear everywhere, or in each of several regions: S1 to S5."""

import jax
import numpy as np

from experiments.test_time_regression import figures
from experiments.test_time_regression.common import (
    claim_of,
    local_weights,
    over,
    problem_of,
    seeds_of,
    softmax_weights,
)
from jattn.theory import regression_layers as layers
from jattn.training import Claim, Run, sweep

NAMES = {
    "local_linear": "local linear",
    "softmax": "softmax",
    "mesa": "Mesa (ridge)",
    "delta": "delta rule",
    "linear": "linear attention",
}
# Errors of an independent implementation at 5 seeds, the same sizes and grids: two regions.
REFERENCE = {"local_linear": 1.76, "softmax": 2.84, "mesa": 4.23, "delta": 7.56}
REFERENCE_SIZES = dict(dim=8, pairs=256, queries=64, noise=0.05)
REDUCED = "in a reduced setting"


def weights_of(problem, config):
    """Weights `[..., m, n]` of every layer, by its knobs."""
    query, key = problem.query, problem.key
    unit = key.shape[1] / len(key)
    of = lambda layer, **knob: layer(query, key, **knob)
    return {
        "local_linear": over(
            lambda scale, ridge: local_weights(problem, scale, ridge), config.scales, config.ridges
        ),
        "softmax": over(lambda scale: softmax_weights(problem, scale), config.scales),
        "mesa": over(lambda x: of(layers.ridge_regression, penalty=x), config.penalties),
        "delta": of(layers.online_gradient_descent, rate=1.0),
        "linear": over(lambda x: of(layers.gradient_step, rate=unit * x), config.rates),
    }


def measure(run: Run, config, segments: int) -> dict[str, np.ndarray]:
    """Bias, variance and sampled error `[seeds, ..., 3]` of every layer, mean over queries."""

    def errors(seed):
        problem = problem_of(config, seed, segments)
        noise = config.task.noise * jax.random.normal(
            jax.random.fold_in(jax.random.key(seed), 1), (config.draws, *problem.clean.shape)
        )

        def of(weights):
            found = layers.bias_and_variance(
                weights, problem.clean, problem.target, noise_variance=config.task.noise**2
            )
            # The error is a fixed part and the noise's; the mixed term has mean zero.
            fixed = weights @ problem.clean - problem.target
            drawn = ((fixed + weights @ noise) ** 2).sum(-1).mean()
            return jax.numpy.stack([found.bias.mean(), found.variance.mean(), drawn])

        def every(weights):
            flat = weights.reshape(-1, *weights.shape[-2:])
            return jax.lax.map(of, flat).reshape(*weights.shape[:-2], 3)

        return {name: every(weights) for name, weights in weights_of(problem, config).items()}

    return sweep(run, f"segments_{segments}", errors, seeds_of(config))


def best(mean: np.ndarray) -> tuple[int, ...]:
    """The knobs of the least expected error, in `[..., 3]`."""
    total = mean[..., 0] + mean[..., 1]
    return tuple(int(i) for i in np.unravel_index(total.argmin(), total.shape))


def segments(run: Run, config) -> list[Claim]:
    """Errors of every layer by the number of regions."""
    found = {count: measure(run, config, count) for count in config.segments}
    mean = {
        count: {name: values.mean(0) for name, values in one.items()}
        for count, one in found.items()
    }
    error, sampled = {}, {}
    for count, one in mean.items():
        at = {name: values[best(values)] for name, values in one.items()}
        error[count] = {name: float(v[0] + v[1]) for name, v in at.items()}
        sampled[count] = {name: float(v[2]) for name, v in at.items()}
    figures.error_by_scale(run, config, mean, {c: best(m["local_linear"]) for c, m in mean.items()})
    spread = {
        count: {
            name: found[count][name][(slice(None), *best(values))][:, :2].sum(-1)
            for name, values in one.items()
        }
        for count, one in mean.items()
    }
    figures.error_by_segments(run, spread, NAMES)

    one, two = error[1], error[2]
    shown = lambda errors: ", ".join(f"{NAMES[n]} {e:.4g}" for n, e in errors.items())
    note = f"{shown(two)}; best of the grid, mean of {config.seeds} seeds"
    straight = f"{shown(one)}; best of the grid, mean of {config.seeds} seeds"
    gap = max(abs(sampled[c][n] / e - 1) for c in error for n, e in error[c].items())
    claims = [
        claim_of("S1", "two regions: error of local linear attention over softmax's", 0.75,
                 two["local_linear"] / two["softmax"], "<=", where=REDUCED, note=note,
                 because="an independent run has 0.62"),
        claim_of("S2", "two regions: the same over ridge regression's", 0.55,
                 two["local_linear"] / two["mesa"], "<=", where=REDUCED, note=note,
                 because="an independent run has 0.42"),
        claim_of("S3", "linear everywhere: error of local linear attention over softmax's", 0.01,
                 one["local_linear"] / one["softmax"], "<=", where=REDUCED, note=straight,
                 because="a hundredth counts as next to nothing"),
        claim_of("S4", "linear everywhere: ridge regression, which knows it, is best", "mesa",
                 min(one, key=one.__getitem__), "is", where=REDUCED, note=straight),
        claim_of("S5", "bias^2 + variance is the error of draws, for every layer (relative)", 0.0,
                 gap, "<=", 0.05, derived=True,
                 note=f"{config.draws} draws of the noise for each of {config.seeds} seeds"),
    ]  # fmt: skip
    if dict(config.task) != REFERENCE_SIZES:
        return claims
    return claims + [
        claim_of(f"S6-{name}", f"two regions: error of {NAMES[name]} as an independent run of 5 "
                 "other seeds has it", value, two[name], "~=", 0.2 * value, where=REDUCED,
                 because="it is that run's")
        for name, value in REFERENCE.items()
    ]  # fmt: skip
