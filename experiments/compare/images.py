"""How few matrices a transformer needs to tell digits apart (arXiv 2410.13732)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.compare.study import optimizer
from experiments.functional import Model, as_functions
from experiments.plots import COLORS, label, panels
from jattn.nn import VisionTransformer, VisionTransformerConfig
from jattn.tasks.images import Images, images
from jattn.training import Claim, Run, UsageError, fit

PAPER = "arXiv 2410.13732"
# name -> mechanism, its options, heads (None: as configured), and whether there are MLPs
VARIANTS: dict[str, tuple[str, dict[str, Any], int | None, bool]] = {
    "full": ("softmax_attention", {}, None, True),
    "no MLP": ("softmax_attention", {}, None, False),
    "symmetric": ("minimal_attention", {"qk": "shared"}, None, False),
    "collapsed": ("minimal_attention", {"qk": "collapsed"}, 1, False),
    "no values": ("minimal_attention", {"qk": "cholesky", "vo": "none"}, 1, False),
}
FULL, LEAST = "full", "symmetric"


def compare_images(run: Run, config) -> list[Claim]:
    """Trains the variants on every set of images."""
    claims, drawn = [], {}
    for name in config.images.datasets:
        try:
            found = images(name)
        except ValueError as error:
            raise UsageError(str(error)) from None
        rows = {v: _trained(run, config, name, found, v) for v in config.images.variants}
        drawn[name] = rows
        if FULL in rows and LEAST in rows:
            claims += _claims(name, rows[FULL], rows[LEAST])
    _draw(run, drawn)
    return claims


def _model(config, name: str, shape: tuple[int, ...], variant: str) -> Model:
    at = config.images
    mechanism, options, heads, with_mlp = VARIANTS[variant]
    settings = VisionTransformerConfig(
        classes=10,
        height=shape[0],
        width=shape[1],
        channels=shape[2],
        patch=at.patch[name],
        dim=at.dim,
        heads=heads or at.heads,
        layers=at.layers,
        mechanisms=(mechanism, options) if options else mechanism,
        mlp_ratio=config.mlp_ratio if with_mlp else 0.0,
    )
    return as_functions(lambda rngs: VisionTransformer(settings, rngs=rngs))


def _trained(run: Run, config, name: str, found: Images, variant: str) -> dict[str, np.ndarray]:
    """Losses and accuracies of each seed, and the number of parameters."""
    if variant not in VARIANTS:
        raise UsageError(f"images.variants: expected any of {', '.join(VARIANTS)}, got {variant!r}")
    at = config.images
    model = _model(config, name, found.train.shape[1:], variant)
    pixels, labels = jnp.asarray(found.train), jnp.asarray(found.train_labels)

    def sample(key):
        index = jax.random.randint(key, (), 0, len(pixels))
        return pixels[index], labels[index]

    def loss(params, batch):
        logits = model.module(params)(batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    steps = max(at.epochs * len(pixels) // at.batch_size, 2)
    label_of_fit = f"images_{name}_{variant.replace(' ', '_')}"
    params = fit(
        model.init,
        loss,
        sample,
        optimizer(at.learning_rate, steps),
        run=run,
        name=label_of_fit,
        seeds=config.seeds,
        steps=steps,
        batch_size=at.batch_size,
        seed=config.seed,
        log_every=max(steps // 20, 1),
    ).params

    def tested():
        @jax.jit
        def measure(params, pixels, labels):
            one = lambda image: model.module(params)(image[None])[0]
            logits = jax.lax.map(one, pixels, batch_size=256)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), (logits.argmax(-1) == labels).mean()

        each = jax.tree.map(np.asarray, params)
        seeds = [jax.tree.map(lambda p, i=i: p[i], each) for i in range(config.seeds)]
        results = {}
        for part, x, y in (
            ("train", found.train, found.train_labels),
            ("test", found.test, found.test_labels),
        ):
            pairs = np.array([[float(r) for r in measure(seed, x, y)] for seed in seeds])
            results |= {f"{part}_loss": pairs[:, 0], f"{part}_accuracy": pairs[:, 1]}
        return results | {"parameters": np.array(model.parameters)}

    return run.cached(label_of_fit, tested)


def _claims(name: str, full: dict[str, np.ndarray], least: dict[str, np.ndarray]) -> list[Claim]:
    count = len(full["test_accuracy"])
    percent = lambda row: f"{100 * row['test_accuracy'].mean():.1f} %"
    return [
        Claim(
            f"minimal-accuracy-{name}",
            f"{name}: without MLPs and with symmetric attention, test accuracy is at most 0.02 "
            "below that of the whole transformer",
            PAPER,
            float(full["test_accuracy"].mean()) - 0.02,
            float(least["test_accuracy"].mean()),
            ">=",
            note=f"{count} seeds; full {percent(full)}, symmetric {percent(least)}",
        ),
        Claim(
            f"minimal-parameters-{name}",
            f"{name}: with about a quarter of the parameters",
            f"{PAPER}, section on the symmetric model",
            0.35,
            float(least["parameters"] / full["parameters"]),
            "<=",
            note=f"{int(least['parameters']):,} and {int(full['parameters']):,}",
        ),
        Claim(
            f"minimal-training-{name}",
            f"{name}: MLPs win on the training set: the whole transformer's loss there is lower",
            PAPER,
            float(least["train_loss"].mean()),
            float(full["train_loss"].mean()),
            "<=",
        ),
    ]


def _draw(run: Run, drawn: dict[str, dict[str, dict[str, np.ndarray]]]) -> None:
    figure, axes = panels(1, len(drawn), width=3.4)
    for axis, (name, rows) in zip(axes[0], drawn.items(), strict=True):
        for number, (variant, row) in enumerate(rows.items()):
            accuracy = 100 * row["test_accuracy"]
            axis.errorbar(
                row["parameters"] / 1e3,
                accuracy.mean(),
                accuracy.std(),
                marker="o",
                linestyle="",
                color=COLORS[number],
                label=variant,
            )
        label(axis, "parameters (thousands)", "test accuracy (%)", name)
    run.save_figure(
        figure,
        "images",
        "Digits told apart by transformers with fewer and fewer matrices: accuracy hardly depends "
        "on the number of parameters. Means and standard deviations over seeds.",
    )
