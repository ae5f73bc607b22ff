"""Discs from a few labelled pixels: alone, with gates, and with gates that look like masks."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classifier_arms import each_seed
from experiments.dense_prediction.discriminator import Discriminator, at_scales
from experiments.dense_prediction.far import nets, optimizer_of_each
from experiments.functional import as_functions
from experiments.plots import bars, panels
from jattn.losses.segmentation import (
    class_weights,
    dice,
    least_squares_gan,
    scribble_cross_entropy,
)
from jattn.tasks.scribbled_discs import Scribbled, scribbled_disc
from jattn.training import Claim, Paper, Run, UsageError, fit

PAPER = Paper("arXiv 2007.01152", "Learning to segment from scribbles using multi-scale "
              "adversarial attention gates")  # fmt: skip
PLAIN, GATED, JUDGED, FULL = "scribbles", "gates", "gates, judged", "all pixels"
GATE = {"gate": ("semantic_gate", {"classes": 2})}
OPTIONS: dict[str, dict[str, Any]] = {PLAIN: {}, GATED: GATE, JUDGED: GATE, FULL: {}}


def scribbles(run: Run, config) -> list[Claim]:
    """Trains four nets on the same few images; one has a discriminator besides."""
    settings = config.scribbles
    levels = len(settings.widths) - 1
    models = nets("scribbles", OPTIONS, outputs=2, widths=tuple(settings.widths))
    judge = as_functions(lambda rngs: Discriminator(levels, settings.side, rngs=rngs))
    sizes = dict(
        side=settings.side, noise=settings.noise, smallest=settings.smallest,
        largest=settings.largest, labelled=settings.labelled,
    )  # fmt: skip
    draw = lambda key: scribbled_disc(key, **sizes)
    try:
        jax.eval_shape(draw, jax.random.key(0))
    except ValueError as error:
        raise UsageError(f"scribbles.{error}") from None
    of_train, of_test = jax.random.split(jax.random.key(config.seed + 1))

    def sample(key):
        """One of the images to learn from, and the mask of another that never is among them."""
        of_index, of_mask, of_noise = jax.random.split(key, 3)
        own = jax.random.randint(of_index, (), 0, settings.images)
        return draw(jax.random.fold_in(of_train, own)), draw(of_mask).mask, of_noise

    def init(key):
        keys = jax.random.split(key, len(models) + 1)
        drawn = {n: m.init(k) for (n, m), k in zip(models.items(), keys, strict=False)}
        return {**drawn, "judge": judge.init(keys[-1])}

    def loss(params, batch):
        images, masks, keys = batch
        total = jnp.zeros(())
        for name, model in models.items():
            out = model.module(params[name])(images.image)
            every = jnp.ones_like(images.drawn)
            total = total + _labelled(out.values, images, every if name == FULL else images.drawn)
            if name == JUDGED:
                total = total + _judged(judge, params["judge"], out, masks, keys, settings)
        return total

    params = fit(
        init, loss, sample, optimizer_of_each([*models, "judge"], settings), run=run,
        name="scribbles", seeds=config.seeds, steps=settings.steps,
        batch_size=settings.batch_size, seed=config.seed, log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    test = jax.vmap(draw)(jax.random.split(of_test, settings.test))
    found = run.cached("scribbles", lambda: _overlaps(models, params, test))
    for name in models:
        run.note(f"{name}: Dice {found[name].mean():.3f}")
    _draw(run, found, models, params, test)
    return _claims(found)


def _labelled(logits: jax.Array, images: Scribbled, drawn: jax.Array) -> jax.Array:
    """Cross entropy of the pixels that count, weighted by class."""
    own = jax.nn.one_hot(images.mask.astype(jnp.int32), 2, dtype=bool) & drawn[..., None]
    return scribble_cross_entropy(jax.nn.softmax(logits), own, weights=class_weights(own))


def _judged(judge, params, out, masks, keys, settings) -> jax.Array:
    """The discriminator's own loss, and the net's share of wishing to be taken for real.

    Each has gradients of its own part alone. Noise makes the largest mask harder to judge by its
    sharp values.
    """
    shade = jax.vmap(lambda key: jax.random.normal(key, out.values.shape[1:3]))(keys)[..., None]
    # The largest mask is the prediction; behind it come the gates, from fine to coarse.
    whole = jax.nn.softmax(out.values)[..., 1:]
    fake = [whole, *out.factors[-2::-1]]
    noisy = lambda found: [found[0] + settings.instance_noise * shade, *found[1:]]
    real = at_scales(masks[..., None].astype(jnp.float32), len(fake))
    fixed = judge.module(jax.lax.stop_gradient(params))
    generator = least_squares_gan(jnp.ones(1), fixed(noisy(fake))).generator
    module = judge.module(params)
    own = least_squares_gan(module(noisy(real)), module(noisy(jax.lax.stop_gradient(fake))))
    return settings.adversarial * generator + own.discriminator


def _overlaps(models, params, test: Scribbled) -> dict[str, np.ndarray]:
    """Mean Dice of the predicted masks of new images by arm, `[seeds]`."""

    @jax.jit
    def measure(params, test):
        found = {}
        for name, model in models.items():
            inside = _predicted(model, params[name], test.image) > 0.5
            found[name] = dice(inside.astype(jnp.float32), test.mask.astype(jnp.float32)).mean()
        return found

    return each_seed(lambda own: measure(own, test), params)


def _predicted(model, params, images: jax.Array) -> jax.Array:
    module = model.module(params)
    one = lambda x: jax.nn.softmax(module(x[None]).values[0])[..., 1]
    return jax.lax.map(one, images, batch_size=50)


def _claims(found: Mapping[str, np.ndarray]) -> list[Claim]:
    before = "that was expected of it before training"
    gain = found[JUDGED] - found[PLAIN]
    by_judge = found[JUDGED] - found[GATED]
    behind = found[FULL] - found[JUDGED]
    note = ", ".join(f"{name} {found[name].mean():.3f}" for name in OPTIONS)
    return [
        PAPER.claim(
            "judged-gates", "gates that are judged by their likeness to masks help where few "
            "pixels are labelled: difference of Dice", 0.03, float(np.median(gain)), ">=",
            because=before, seeds=gain, note=note,
        ),
        PAPER.claim(
            "judge", "it is the judge that helps and not the gates alone: difference of Dice", 0.0,
            float(np.median(by_judge)), ">=", because="0 is no difference", seeds=by_judge,
        ),
        PAPER.claim(
            "near-full", "what all labels would give is near: difference of Dice", 0.05,
            float(np.median(behind)), "<=", because="the paper has near, and no number was read",
            seeds=behind,
        ),
    ]  # fmt: skip


def _draw(run: Run, found, models, params, test: Scribbled) -> None:
    figure, axes = panels(1, 1, width=4.4, height=2.4)
    bars(axes[0, 0], {name: found[name] for name in models}, "Dice of new images")
    axes[0, 0].set_xlim(0, 1)
    run.save_figure(figure, "scribbles", "Discs segmented from few labelled pixels, with and "
                    "without gates and a judge of them, and from all; dots are seeds.")  # fmt: skip
    first = jax.tree.map(lambda leaf: leaf[0], params)
    shown = {n: np.asarray(_predicted(m, first[n], test.image[:3])) for n, m in models.items()}
    figure, axes = panels(3, 2 + len(shown), width=1.1, height=1.2)
    for row in range(3):
        axes[row, 0].imshow(np.asarray(test.image[row, ..., 0]), cmap="gray")
        labels = np.where(test.drawn[row], 2.0 * np.asarray(test.mask[row]) - 1, 0)
        axes[row, 1].imshow(labels, cmap="RdBu_r", vmin=-1, vmax=1)
        for axis, values in zip(axes[row, 2:], shown.values(), strict=True):
            axis.imshow(values[row], vmin=0, vmax=1)
    for axis, title in zip(axes[0], ["image", "such labels", *shown], strict=True):
        axis.set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    run.save_figure(figure, "scribbled_images", "New images, what labels are like, and the discs "
                    "that four nets find.")  # fmt: skip
