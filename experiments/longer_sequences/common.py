"""Decoders that are trained at one length and read at others."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.functional import decoder, optimizer
from experiments.token_tasks import Example, loss_in_training
from jattn.nn import TransformerConfig
from jattn.training import Run, fit


def losses_by_place(
    run: Run,
    name: str,
    settings: TransformerConfig,
    config,
    train: Callable[[jax.Array], Example],
    test: Callable[[jax.Array], Example],
    *,
    seed: int,
) -> np.ndarray:
    """Trains a decoder, and finds its loss at every place of longer sequences.

    Args:
        run: the open workdir.
        name: of the fit.
        settings: of the decoder.
        config: of the study: seeds, steps, batch_size, learning_rate, test_size.
        train: sampler of sequences to train on.
        test: sampler of longer ones.
        seed: the base seed.

    Returns:
        `[seeds, t]`, in nats, the mean over what counts at every place; NaN where nothing does.
    """
    model = decoder(settings)
    params = fit(
        model.init,
        lambda params, batch: loss_in_training(model, params, batch),
        train,
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=name,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=seed,
        log_every=max(config.steps // 10, 1),
    ).params

    def measure():
        keys = jax.random.split(jax.random.key(seed + 1_000_000), config.test_size)
        batch = jax.jit(jax.vmap(test))(keys)

        def by_place(params, batch):
            logits = jax.nn.log_softmax(model.module(params)(batch.tokens))
            told = jnp.take_along_axis(logits, batch.targets[..., None], axis=-1)[..., 0]
            return -jnp.mean(told, axis=0, where=batch.counts)

        # The batch as an argument, or the compiler would fold it.
        each = jax.jit(lambda params, batch: jax.lax.map(lambda p: by_place(p, batch), params))
        return {"losses": each(jax.tree.map(np.asarray, params), batch)}

    return run.cached(name, measure)["losses"]
