"""Transformers for images, whole and with fewer matrices: training them, and a figure."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.functional import Model, as_functions, optimizer
from experiments.plots import COLORS, label, panels
from jattn.nn import VisionTransformer, VisionTransformerConfig
from jattn.tasks.images import Images
from jattn.training import Run, UsageError, fit

# name -> mechanism, its options, heads (None: as configured), and whether there are MLPs
VARIANTS: dict[str, tuple[str, dict[str, Any], int | None, bool]] = {
    "full": ("softmax_attention", {}, None, True),
    "no MLP": ("softmax_attention", {}, None, False),
    "symmetric": ("minimal_attention", {"qk": "shared"}, None, False),
    "collapsed": ("minimal_attention", {"qk": "collapsed"}, 1, False),
    "no values": ("minimal_attention", {"qk": "cholesky", "vo": "none"}, 1, False),
}


def _model(config, name: str, shape: tuple[int, ...], variant: str) -> Model:
    mechanism, options, heads, with_mlp = VARIANTS[variant]
    settings = VisionTransformerConfig(
        classes=10,
        height=shape[0],
        width=shape[1],
        channels=shape[2],
        patch=config.patch[name],
        dim=config.dim,
        heads=heads or config.heads,
        layers=config.layers,
        mechanisms=(mechanism, options) if options else mechanism,
        mlp_ratio=config.mlp_ratio if with_mlp else 0.0,
    )
    return as_functions(lambda rngs: VisionTransformer(settings, rngs=rngs))


def trained(run: Run, config, name: str, found: Images, variant: str) -> dict[str, np.ndarray]:
    """Losses and accuracies of each seed, and the number of parameters."""
    if variant not in VARIANTS:
        raise UsageError(f"variants: expected any of {', '.join(VARIANTS)}, got {variant!r}")
    model = _model(config, name, found.train.shape[1:], variant)
    pixels, labels = jnp.asarray(found.train), jnp.asarray(found.train_labels)

    def sample(key):
        index = jax.random.randint(key, (), 0, len(pixels))
        return pixels[index], labels[index]

    def loss(params, batch):
        logits = model.module(params)(batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    steps = max(config.epochs * len(pixels) // config.batch_size, 2)
    label_of_fit = f"images_{name}_{variant.replace(' ', '_')}"
    params = fit(
        model.init,
        loss,
        sample,
        optimizer(config.learning_rate, steps),
        run=run,
        name=label_of_fit,
        seeds=config.seeds,
        steps=steps,
        batch_size=config.batch_size,
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


def draw(run: Run, drawn: dict[str, dict[str, dict[str, np.ndarray]]]) -> None:
    """Saves a figure of accuracy over the number of parameters."""
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
