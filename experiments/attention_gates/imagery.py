"""Twelve gates in one network that reads made recordings of imagined movements."""

import jax
import numpy as np
import optax

from experiments.attention_gates.gates import PAPER, costs, noted
from experiments.classifier_arms import accuracies, init_of, loss_of, models_of
from experiments.functional import as_functions
from experiments.margins import bar, standard_error
from experiments.plots import COLORS, label, panels
from jattn.nn import BaseNet, BaseNetConfig
from jattn.tasks.motor_imagery import LIMBS, motor_imagery
from jattn.training import Claim, Run, UsageError, fit

FIELDS = ("electrodes", "length", "filters", "width", "window", "stride", "features", "taps",
          "final")  # fmt: skip


def imagery(run: Run, config) -> list[Claim]:
    """Trains BaseNet with each gate on the same recordings."""
    settings = config.imagery
    sizes = {field: settings[field] for field in FIELDS}
    try:
        plain = BaseNetConfig(classes=len(LIMBS), **sizes)
    except ValueError as error:
        raise UsageError(f"imagery.{error}") from None

    def make(gate):
        own = BaseNetConfig(classes=len(LIMBS), gate=gate, **sizes)
        return as_functions(lambda rngs: BaseNet(own, rngs=rngs))

    models = models_of("gates", config.gates, make)

    def sample(key):
        return motor_imagery(
            key, electrodes=settings.electrodes, length=settings.length, noise=settings.noise
        )

    params = fit(
        init_of(models), loss_of(models), sample, optax.adam(settings.learning_rate), run=run,
        name="imagery", seeds=config.seeds, steps=settings.steps, batch_size=settings.batch_size,
        seed=config.seed, log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    series, limbs = jax.vmap(sample)(
        jax.random.split(jax.random.key(config.seed + 1), settings.test)
    )
    found = run.cached("imagery", lambda: accuracies(models, params, series, limbs))
    cost = run.cached(
        "imagery_costs", lambda: costs(config, dim=plain.features, tokens=plain.tokens)
    )
    noted(run, found, cost)
    _draw(run, found, cost)
    if "none" not in found or len(found) == 1:
        return []
    own = {name: accuracy for name, accuracy in found.items() if name != "none"}
    best = max(own, key=lambda name: own[name].mean())
    gains = ", ".join(f"{n} {a.mean() - found['none'].mean():+.3f}" for n, a in own.items())
    return [
        PAPER.claim(
            "imagery-learns", "the network without a gate tells the four limbs apart: accuracy",
            2 / len(LIMBS), float(np.median(found["none"])), ">=",
            because="twice a guess is no guess", seeds=found["none"],
        ),
        PAPER.claim(
            "imagery-gates", "the best gate is better than none: accuracy",
            bar(found["none"], own[best], 1 / len(LIMBS)), float(own[best].mean()), ">=",
            because="it is what the network without has, and two standard errors",
            note=f"{best}; all, against none: {gains}", seeds=own[best],
        ),
    ]  # fmt: skip


def _draw(run: Run, found, cost) -> None:
    names = list(found)
    figure, axes = panels(1, 2, width=3.8, height=3.4)
    rows = np.arange(len(names))
    means = np.array([found[name].mean() for name in names])
    spread = [standard_error(found[name]) for name in names]
    axes[0, 0].barh(rows, means, xerr=spread, color=COLORS[0], alpha=0.6, capsize=2)
    axes[0, 0].set_yticks(rows, names, fontsize=6)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlim(max(means.min() - 0.1, 0), 1)
    label(axes[0, 0], "accuracy", "")
    axes[0, 1].scatter(cost["microseconds"], means, color=COLORS[2], s=14)
    for row, name in enumerate(names):
        place = (cost["microseconds"][row], means[row])
        axes[0, 1].annotate(name.split(":")[0], place, fontsize=5, rotation=30)
    label(axes[0, 1], "us of a batch of 32", "accuracy")
    run.save_figure(
        figure, "imagery", "Gates in BaseNet on made recordings of imagined movements: accuracy "
        "with standard errors over seeds, and by time.",
    )  # fmt: skip
