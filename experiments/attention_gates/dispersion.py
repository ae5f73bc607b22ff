"""Which gates tell a channel that fluctuates much from others of the same mean."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.attention_gates.gates import PAPER, costs, noted
from experiments.classifier_arms import Models, accuracies, each_seed, init_of, loss_of, models_of
from experiments.functional import as_functions
from experiments.plots import COLORS, label, log_scale, panels
from jattn.nn.kinds import Gate
from jattn.tasks.dispersed_channels import blind_accuracy, dispersed_channels
from jattn.training import Claim, Run, fit

# Those that the claims are about, by what they read of a channel.
MEANS = ("none", "se", "eca", "fca:frequencies=(2,)")
SPREADS = ("gct", "srm")
CBAM = "cbam"


class GatedMean(nnx.Module):
    """A gate, the mean over time, and a linear read-out."""

    def __init__(self, gate: Any, channels: int, *, rngs: nnx.Rngs):
        self.gate = None if gate is None else Gate(gate[0], dim=channels, rngs=rngs, **gate[1])
        self.head = nnx.Linear(channels, 2, rngs=rngs)

    def __call__(self, series: jax.Array, *, training: bool = False) -> jax.Array:
        """Logits of every series."""
        return self.head(self.gated(series, training=training).mean(1))

    def gated(self, series: jax.Array, *, training: bool = False) -> jax.Array:
        """Series behind the gate."""
        return series if self.gate is None else self.gate(series, training=training)


def dispersion(run: Run, config) -> list[Claim]:
    """Trains all gates, and looks at what they leave of the channel that counts."""
    settings = config.dispersion
    sizes = dict(length=settings.length, channels=settings.channels)
    make = lambda gate: as_functions(lambda rngs: GatedMean(gate, settings.channels, rngs=rngs))
    models = models_of("gates", config.gates, make)
    sample = lambda key: dispersed_channels(key, **sizes)
    params = fit(
        init_of(models), loss_of(models), sample, optax.adam(settings.learning_rate), run=run,
        name="dispersion", seeds=config.seeds, steps=settings.steps,
        batch_size=settings.batch_size, seed=config.seed, log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    test = jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), settings.test))
    found = run.cached("dispersion", lambda: accuracies(models, params, test.series, test.label))
    left = run.cached("left", lambda: _left(models, params, test))
    cost = run.cached("costs", lambda: costs(config, dim=settings.channels, tokens=settings.length))
    noted(run, found, cost)
    _draw(run, found, left, cost, blind_accuracy(settings.channels))
    return _claims(found, settings.channels)


def _left(models: Models, params: Any, test) -> dict[str, np.ndarray]:
    """How much larger a share a gate leaves of the noisy channel than of others, `[seeds]`."""

    @jax.jit
    def measure(params, series, noisy):
        one_hot = jax.nn.one_hot(noisy, series.shape[-1])
        power = lambda x: (x**2).mean(1)  # [b, c]

        def of(module):
            share = jnp.sqrt(power(module.gated(series)) / power(series))
            own = (share * one_hot).sum(1).mean()
            others = (share * (1 - one_hot)).sum(1).mean() / (share.shape[1] - 1)
            return own / others

        return {name: of(model.module(params[name])) for name, model in models.items()}

    return each_seed(lambda own: measure(own, test.series, test.noisy), params)


def _claims(found: dict[str, np.ndarray], channels: int) -> list[Claim]:
    def of(*names):
        return np.stack([found[name] for name in names if name in found]), [
            f"{name} {found[name].mean():.3f}" for name in names if name in found
        ]

    means, said = of(*MEANS)
    spreads, said_of_spreads = of(*SPREADS)
    claims = []
    if len(means) and len(spreads):
        gain = spreads.min(0) - means.max(0)
        claims.append(
            PAPER.claim(
                "dispersion", "gates by norm or deviation tell the noisy channel, those by means "
                "or cosines do not: difference of the worst to the best accuracy", 0.2,
                float(np.median(gain)), ">=", because="that was expected of them before training",
                note=", ".join(said_of_spreads + said), seeds=gain,
            )
        )  # fmt: skip
    if CBAM in found and "se" in found:
        gain = found[CBAM] - found["se"]
        claims.append(
            PAPER.claim(
                "maximum", "a maximum besides the mean (CBAM) tells some of it: difference to "
                "squeeze and excitation", 0.15, float(np.median(gain)), ">=",
                because="that was expected of it before training", seeds=gain,
            )
        )  # fmt: skip
    if "none" in found:
        claims.append(
            PAPER.claim(
                "majority", "without a gate the majority of all signs decides: accuracy",
                blind_accuracy(channels), float(np.median(found["none"])), "~=", 0.02,
                derived=True, seeds=found["none"],
            )
        )  # fmt: skip
    return claims


def _draw(run: Run, found, left, cost, blind: float) -> None:
    names = list(found)
    rows = np.arange(len(names))
    figure, axes = panels(1, 3, width=3.3, height=3.6)
    for axis, values in ((axes[0, 0], found), (axes[0, 1], left)):
        axis.barh(rows, [values[name].mean() for name in names], color=COLORS[0], alpha=0.5)
        for row, name in enumerate(names):
            axis.plot(values[name], [row] * len(values[name]), "o", ms=3, color=COLORS[1])
        axis.invert_yaxis()
    axes[0, 0].set_yticks(rows, names, fontsize=6)
    axes[0, 0].axvline(blind, color="black", linestyle="--", linewidth=0.8, label="means alone")
    axes[0, 0].set_xlim(0.5, 1)
    axes[0, 1].set_yticks(rows, [""] * len(names))
    axes[0, 1].axvline(1, color="black", linestyle="--", linewidth=0.8)
    axes[0, 1].set_xlim(0.9)
    log_scale(axes[0, 1], "x")
    label(axes[0, 0], "accuracy", "")
    label(axes[0, 1], "share left of the noisy channel / of others", "")
    accuracy = [found[name].mean() for name in names]
    axes[0, 2].scatter(np.maximum(cost["parameters"], 1), accuracy, color=COLORS[2], s=14)
    for row, name in enumerate(names):
        place = (max(cost["parameters"][row], 1), accuracy[row])
        axes[0, 2].annotate(name.split(":")[0], place, fontsize=5, rotation=30)
    axes[0, 2].set_xscale("log")
    label(axes[0, 2], "parameters (1: none)", "accuracy")
    run.save_figure(
        figure, "dispersion", "Which gates see dispersion: accuracy where the noisiest channel "
        "decides, what they leave of that channel, and accuracy by parameters; dots are seeds.",
    )  # fmt: skip
