"""A pointer network as pure functions, trained on pairs of points and numbers, and decoded."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.classifier_arms import each_seed
from experiments.functional import Model, as_functions
from jattn.nn import PointerNetwork, PointerNetworkConfig, pointing_loss
from jattn.training import Paper, Run, UsageError, fit

PAPER = Paper("arXiv 1506.03134", "Pointer networks")


def trained(run: Run, config, name: str, sample: Callable[[jax.Array], Any]) -> tuple[Model, Any]:
    """A network, and its parameters `[seeds, ...]`.

    Args:
        run: the open workdir.
        config: with the settings of a study of this name.
        name: of the study.
        sample: `(key) -> (points [n, 2], which are real [n], numbers [t])`.
    """
    settings = config[name]
    try:
        sizes = PointerNetworkConfig(dim=settings.dim)
    except ValueError as error:
        raise UsageError(f"{name}.{error}") from None
    model = as_functions(lambda rngs: PointerNetwork(sizes, rngs=rngs))

    def loss(params, batch):
        points, real, numbers = batch
        return pointing_loss(model.module(params)(points, numbers, mask=real), numbers)

    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    params = fit(
        model.init, loss, sample, optax.chain(optax.clip_by_global_norm(2.0), optax.adam(rate)),
        run=run, name=name, seeds=config.seeds, steps=settings.steps,
        batch_size=settings.batch_size, seed=config.seed,
        log_every=max(settings.steps // 20, 1),
    ).params  # fmt: skip
    return model, params


def decoded(
    model: Model, params: Any, points: np.ndarray, steps: int, *, tour: bool = False
) -> np.ndarray:
    """The likeliest numbers step by step, of each seed, `[seeds, sets, steps]`."""
    given = jnp.asarray(points, jnp.float32)
    return each_seed(
        jax.jit(lambda params: model.module(params).decode(given, steps, tour=tour)), params
    )


def known(points: np.ndarray, numbers: np.ndarray) -> Callable[[jax.Array], Any]:
    """A sampler of sets whose answers were computed before.

    Args:
        points: `[k, n, 2]`.
        numbers: `[k, t]`, with zeros behind the end.
    """
    places, answers = jnp.asarray(points, jnp.float32), jnp.asarray(numbers, jnp.int32)

    def sample(key):
        index = jax.random.randint(key, (), 0, len(places))
        return places[index], jnp.ones(places.shape[1], bool), answers[index]

    return sample
