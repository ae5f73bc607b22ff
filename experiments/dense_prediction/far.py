"""Pixels whose class depends on a cue that convolutions of two levels do not reach."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.classifier_arms import each_seed, init_of
from experiments.functional import Model, as_functions, optimizer
from experiments.plots import bars, panels
from jattn.nn import UNet, UNetConfig
from jattn.tasks.far_cues import CLASSES, far_cue
from jattn.training import Claim, Paper, Run, UsageError, fit

DUAL = Paper("arXiv 1906.02849", "Multi-scale self-guided attention")
MEDUSA = Paper("arXiv 2110.06063", "MEDUSA")
MAXIM = Paper("arXiv 2201.02973", "MAXIM")
NONE, POSITION, CHANNEL, BOTH = "none", "position", "channel", "position + channel"
MAP, AXES, SOFTMAX = "global map", "multi-axis", "softmax"


def arms(settings) -> dict[str, dict[str, Any]]:
    """Options of the U-Net by the name of the arm."""
    mixers = {
        POSITION: ("position_attention",),
        CHANNEL: ("channel_self_attention",),
        BOTH: ("position_attention", "channel_self_attention"),
        AXES: (("multi_axis_gmlp", {"block": settings.block, "grid": settings.block}),),
        SOFTMAX: ("softmax_attention",),
    }
    deep = {"map_widths": tuple(settings.map_widths)}
    return {NONE: {}, **{name: {"mixers": own} for name, own in mixers.items()}, MAP: deep}


def nets(field: str, options: Mapping[str, dict[str, Any]], **sizes: Any) -> dict[str, Model]:
    """A U-Net for each arm, as functions of their parameters.

    Raises:
        UsageError: sizes that do not fit.
    """
    try:
        configs = {name: UNetConfig(**sizes, **own) for name, own in options.items()}
    except ValueError as error:
        raise UsageError(f"{field}.{error}") from None
    make = lambda config: as_functions(lambda rngs: UNet(config, rngs=rngs))
    return {name: make(config) for name, config in configs.items()}


def far(run: Run, config) -> list[Claim]:
    """Trains all arms on the same images, and compares the classes that they give new ones."""
    settings = config.far
    models = nets("far", arms(settings), outputs=CLASSES, widths=tuple(settings.widths))
    sample = lambda key: far_cue(key, side=settings.side, noise=settings.noise)

    def loss(params, batch):
        images, classes = batch
        total = jnp.zeros(())
        for name, model in models.items():
            logits = model.module(params[name])(images).values
            each = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
            weight = jnp.where(classes > 0, settings.of_squares, 1.0)
            total = total + (each * weight).mean()
        return total

    params = fit(
        init_of(models), loss, sample, optimizer_of_each(models, settings), run=run, name="far",
        seeds=config.seeds, steps=settings.steps, batch_size=settings.batch_size, seed=config.seed,
        log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    test = jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), settings.test))
    found = run.cached("far", lambda: _unions(models, params, *test))
    for name, model in models.items():
        run.note(f"{name}: mean IoU {found[name].mean():.3f}, {model.parameters:,} parameters")
    _draw(run, found, models, params, test)
    return _claims(found)


def optimizer_of_each(names: Iterable[str], settings) -> optax.GradientTransformation:
    """Adam, clipped for each arm by itself, so that none knows of the others."""
    inner = optimizer(settings.learning_rate, settings.steps)
    return optax.multi_transform(
        dict.fromkeys(names, inner), lambda params: {name: name for name in params}
    )


def mean_union(guess: jax.Array, classes: jax.Array, number: int) -> jax.Array:
    """Intersection over union of each class over all images, and their mean."""
    both = jnp.stack([((guess == c) & (classes == c)).sum() for c in range(number)])
    either = jnp.stack([((guess == c) | (classes == c)).sum() for c in range(number)])
    return (both / jnp.maximum(either, 1)).mean()


def _guesses(model: Model, params: Any, images: jax.Array) -> jax.Array:
    module = model.module(params)
    return jax.lax.map(lambda x: module(x[None]).values[0].argmax(-1), images, batch_size=50)


def _unions(models, params, images, classes) -> dict[str, np.ndarray]:
    """Mean IoU by arm, `[seeds]`."""

    @jax.jit
    def measure(params, images, classes):
        return {
            name: mean_union(_guesses(model, params[name], images), classes, CLASSES)
            for name, model in models.items()
        }

    return each_seed(lambda own: measure(own, images, classes), params)


def _claims(found: Mapping[str, np.ndarray]) -> list[Claim]:
    before = "that was expected of it before training"
    rows = (
        (DUAL, POSITION, "position-attention", "attention over places"),
        (MEDUSA, MAP, "global-map", "one map of a deeper net"),
        (MAXIM, AXES, "multi-axis", "gating over blocks and a grid"),
    )
    claims = []
    for paper, arm, name, words in rows:
        gain = found[arm] - found[NONE]
        claims.append(
            paper.claim(
                name, f"{words} tells what a far cue decides: mean IoU above the net without", 0.1,
                float(np.median(gain)), ">=", because=before, seeds=gain,
                note=f"{found[arm].mean():.3f} with, {found[NONE].mean():.3f} without",
            )
        )  # fmt: skip
    extra = found[BOTH] - found[POSITION]
    claims.append(
        DUAL.claim(
            "channels-besides", "attention over channels besides does no harm: difference of mean "
            "IoU", -0.02, float(np.median(extra)), ">=", because="0.02 is hardly seen", seeds=extra,
        )
    )  # fmt: skip
    return claims


def _draw(run: Run, found, models, params, test) -> None:
    figure, axes = panels(1, 1, width=5.0, height=2.8)
    bars(axes[0, 0], {name: found[name] for name in models}, "mean IoU")
    axes[0, 0].set_xlim(0, 1)
    run.save_figure(
        figure, "far", "A U-Net of two levels with one more thing each, where a far cue decides "
        "the class of squares; dots are seeds.",
    )  # fmt: skip
    first = jax.tree.map(lambda leaf: leaf[0], params)
    shown = [NONE, POSITION, MAP, AXES]
    figure, axes = panels(3, 2 + len(shown), width=1.1, height=1.2)
    guesses = {name: np.asarray(_guesses(models[name], first[name], test[0][:3])) for name in shown}
    for row in range(3):
        axes[row, 0].imshow(np.asarray(test[0][row, ..., 0]), cmap="gray")
        axes[row, 1].imshow(np.asarray(test[1][row]), vmin=0, vmax=2)
        for axis, name in zip(axes[row, 2:], shown, strict=True):
            axis.imshow(guesses[name][row], vmin=0, vmax=2)
    for axis, title in zip(axes[0], ["image", "truth", *shown], strict=True):
        axis.set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    run.save_figure(figure, "far_images", "New images, their classes, and what four nets say.")
