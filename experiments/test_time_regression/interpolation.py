"""Between least squares and softmax: two knobs and their limits, I1 to I5."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.power_law import exponent
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


def measure(run: Run, config) -> dict[str, np.ndarray]:
    """Errors on the plane of scale and ridge, and distances from the limits."""
    scales, ridges = config.interpolation.scales, config.interpolation.ridges
    noise = config.task.noise**2

    def compare(seed):
        problem = problem_of(config, seed, 2)
        query, key = problem.query, problem.key
        weights = over(lambda a, b: local_weights(problem, a, b), scales, ridges)
        softmax = over(lambda scale: softmax_weights(problem, scale), scales)
        # Where all weights are equal, the ridge is relative to n of them.
        line = over(
            lambda ridge: layers.ridge_regression(
                query, key, penalty=len(key) * ridge, intercept=True
            ),
            ridges,
        )

        def error(weights):
            found = layers.bias_and_variance(
                weights, problem.clean, problem.target, noise_variance=noise
            )
            return found.total.mean(-1)

        def gap(these, those, axis=(-2, -1)):
            return jnp.abs((these - those) @ problem.value).max(axis)

        draw = jax.random.normal(jax.random.fold_in(jax.random.key(seed), 2), (key.shape[1] + 1, 4))
        affine = lambda x: x @ draw[1:] + draw[0]
        size = jnp.abs(softmax @ problem.value).max()
        return {
            "error": error(weights),
            "softmax_error": error(softmax),
            "line_error": error(line),
            "to_softmax": gap(weights, softmax[:, None]) / size,
            "to_line": gap(weights, line) / size,
            "affine": jnp.abs(weights @ affine(key) - affine(query)).max((-2, -1))
            / jnp.abs(affine(query)).max(),
        }

    return sweep(run, "interpolation", compare, seeds_of(config))


def interpolation(run: Run, config) -> list[Claim]:
    """How each limit is reached, and that the best lies between them."""
    scales, ridges = (np.asarray(config.interpolation[n]) for n in ("scales", "ridges"))
    mean = {name: values.mean(0) for name, values in measure(run, config).items()}
    figures.interpolation(run, scales, ridges, mean)
    at = int(np.argmin(np.abs(np.log(scales))))  # the scale nearest to 1
    middle = int(np.argmin(np.abs(np.log10(ridges))))
    large, small, flat = ridges >= 1e2, ridges <= 1e-2, scales <= 0.1
    row, column = np.unravel_index(mean["error"].argmin(), mean["error"].shape)
    ends = min(mean["softmax_error"].min(), mean["line_error"].min())
    note = f"mean of {config.seeds} seeds"
    return [
        claim_of("I1", "distance from softmax falls like ridge to this power, as it grows", -1.0,
                 float(exponent(ridges[large], mean["to_softmax"][at, large])), "~=", 0.05,
                 derived=True,
                 note=f"{mean['to_softmax'][at, -1]:.1e} at ridge {ridges[-1]:g}; {note}"),
        claim_of("I2", "distance from ridge regression with intercept falls like scale to this "
                 "power, as it shrinks", 1.0,
                 float(exponent(scales[flat], mean["to_line"][flat, middle])), "~=", 0.05,
                 derived=True,
                 note=f"{mean['to_line'][0, middle]:.1e} at scale {scales[0]:g}; {note}"),
        claim_of("I3", "values affine in the keys: the error falls like ridge to this power, as it "
                 "shrinks", 1.0, float(exponent(ridges[small], mean["affine"][at, small])), "~=",
                 0.05, derived=True,
                 note=f"relative error {mean['affine'][at, 0]:.1e} at ridge {ridges[0]:g}; {note}"),
        claim_of("I4", "two regions: the best of the plane over the better of both limits", 0.75,
                 mean["error"].min() / ends, "<=", because="a quarter less is a clear gain",
                 note=f"best at scale {scales[row]:g}, ridge {ridges[column]:.2g}; {note}"),
    ]  # fmt: skip
