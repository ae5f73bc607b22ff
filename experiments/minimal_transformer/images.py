"""Transformers for images, whole and with fewer matrices, and a figure of them."""

from typing import Any

import numpy as np

from experiments.functional import Model, as_functions
from experiments.image_models import tested_on_images, trained_on_images
from experiments.plots import COLORS, label, panels
from jattn.nn import VisionTransformer, VisionTransformerConfig
from jattn.tasks.images import Images
from jattn.training import Run, UsageError

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
    label_of_fit = f"images_{name}_{variant.replace(' ', '_')}"
    params = trained_on_images(run, config, label_of_fit, model, found, seed=config.seed)
    return run.cached(label_of_fit, lambda: tested_on_images(model, params, found))


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
