"""How the studies train."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jattn.training import FitResult, Run, fit


def train(
    run: Run,
    name: str,
    init: Callable[[jax.Array], Any],
    loss: Callable[[Any, Any], jax.Array],
    sample: Callable[[jax.Array], Any],
    config,
    *,
    seed: int,
    record: Callable[[Any], dict[str, jax.Array]] | None = None,
    log_every: int | None = None,
) -> FitResult:
    """Trains with Adam, warmed up and then constant.

    Args:
        run: the open workdir.
        name: of the fit.
        init, loss, sample, record: as for `fit`.
        config: of the study: seeds, steps, batch_size, learning_rate.
        seed: the base seed.
        log_every: default a twentieth of the steps.
    """
    rate = optax.warmup_constant_schedule(0.0, config.learning_rate, 50)
    return fit(
        init,
        loss,
        sample,
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99)),
        run=run,
        name=name,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=seed,
        log_every=log_every or max(config.steps // 20, 1),
        record=record,
    )
