"""Classifiers of images: their training, and what they get right."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.functional import Model, optimizer
from jattn.tasks.images import Images
from jattn.training import Run, fit


def image_sampler(found: Images):
    """Draws one image to train on, and its class."""
    pixels, labels = jnp.asarray(found.train), jnp.asarray(found.train_labels)

    def sample(key):
        index = jax.random.randint(key, (), 0, len(pixels))
        return pixels[index], labels[index]

    return sample


def image_loss(model: Model, params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Mean of -log p(class), in nats."""
    logits = model.module(params)(batch[0])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


def trained_on_images(
    run: Run, config, name: str, model: Model, found: Images, *, seed: int
) -> Any:
    """Parameters `[seeds, ...]` after so many epochs.

    Args:
        run: the open workdir.
        config: epochs, batch_size, learning_rate, seeds.
        name: of the fit.
        model: of images to logits.
        found: the images.
        seed: the base seed.
    """
    steps = max(config.epochs * len(found.train) // config.batch_size, 2)
    return fit(
        model.init,
        lambda params, batch: image_loss(model, params, batch),
        image_sampler(found),
        optimizer(config.learning_rate, steps),
        run=run,
        name=name,
        seeds=config.seeds,
        steps=steps,
        batch_size=config.batch_size,
        seed=seed,
        log_every=max(steps // 20, 1),
    ).params


def tested_on_images(model: Model, params: Any, found: Images) -> dict[str, np.ndarray]:
    """Losses and accuracies of each seed, `[seeds]`, and the number of parameters."""

    @jax.jit
    def measure(params, pixels, labels):
        one = lambda image: model.module(params)(image[None])[0]
        logits = jax.lax.map(one, pixels, batch_size=256)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits.argmax(-1) == labels).mean()

    each = jax.tree.map(np.asarray, params)
    count = len(jax.tree.leaves(each)[0])
    seeds = [jax.tree.map(lambda p, i=i: p[i], each) for i in range(count)]
    results = {}
    for part, x, y in (
        ("train", found.train, found.train_labels),
        ("test", found.test, found.test_labels),
    ):
        pairs = np.array([[float(r) for r in measure(seed, x, y)] for seed in seeds])
        results |= {f"{part}_loss": pairs[:, 0], f"{part}_accuracy": pairs[:, 1]}
    return results | {"parameters": np.array(model.parameters)}
