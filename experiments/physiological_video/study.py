"""Trains the networks, reads heart rates off their signals, and looks at the masks."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classifier_arms import each_seed, init_of
from experiments.functional import as_functions, optimizer
from experiments.physiological_video.network import PulseNetwork
from experiments.plots import COLORS, bars, label, panels
from jattn.losses.signals import negative_pearson
from jattn.tasks.pulse_video import FASTEST, SLOWEST, PulseVideo, pulse_video
from jattn.training import Claim, Paper, Run, UsageError, fit

PAPER = Paper("arXiv 2507.07795", "physFSUNet")
WHOLE, UNMASKED, UNSHIFTED, UNCHANGED = "all three", "no mask", "no shift", "no differences"
WITHOUT = {WHOLE: "", UNMASKED: "mask", UNSHIFTED: "shift", UNCHANGED: "differences"}
PARTS = ("mask", "shift", "differences")


def pulse(run: Run, config) -> list[Claim]:
    """Trains all four on the same videos, and tests them on new ones."""
    sizes = dict(
        frames=config.frames, side=config.side, per_second=config.per_second,
        amplitude=config.amplitude, light=config.light, noise=config.noise,
    )  # fmt: skip
    sample = lambda key: pulse_video(key, **sizes)
    try:
        jax.eval_shape(sample, jax.random.key(0))
    except ValueError as error:
        raise UsageError(str(error)) from None

    def make(without):
        parts = {part: part != without for part in PARTS}
        return as_functions(lambda rngs: PulseNetwork(config.channels, **parts, rngs=rngs))

    models = {name: make(without) for name, without in WITHOUT.items()}

    def loss(params, batch):
        change = jnp.diff(batch.pulse, axis=-1)
        each = [
            negative_pearson(model.module(params[name])(batch.frames)[:, 1:], change).mean()
            for name, model in models.items()
        ]
        return sum(each, jnp.zeros(()))

    params = fit(
        init_of(models), loss, sample, optimizer(config.learning_rate, config.steps), run=run,
        name="pulse", seeds=config.seeds, steps=config.steps, batch_size=config.batch_size,
        seed=config.seed, log_every=max(config.steps // 10, 1),
    ).params  # fmt: skip
    test = jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), config.test))
    found = run.cached("pulse", lambda: _measured(models, params, test, config.per_second))
    for name in models:
        run.note(
            f"{name}: heart rate off by {found[name].mean():.1f} a minute, correlation "
            f"{found[f'correlation, {name}'].mean():.3f}"
        )
    _draw(run, found, models, params, test, config.per_second)
    return _claims(found)


def heart_rate(signal: jax.Array, per_second: float, size: int = 1024) -> jax.Array:
    """The frequency between the slowest and the fastest heart with the most power, `[b]` in Hz."""
    window = np.hanning(signal.shape[-1])
    power = jnp.abs(jnp.fft.rfft((signal - signal.mean(-1, keepdims=True)) * window, size)) ** 2
    frequency = np.fft.rfftfreq(size, 1 / per_second)
    inside = (frequency >= SLOWEST) & (frequency <= FASTEST)
    return jnp.asarray(frequency)[jnp.where(inside, power, -1).argmax(-1)]


def _measured(models, params, test: PulseVideo, per_second: float) -> dict[str, np.ndarray]:
    """Mean errors of heart rates a minute, correlations, and how much of the look is on skin."""

    @jax.jit
    def measure(params, test):
        found, change = {}, jnp.diff(test.pulse, axis=-1)
        for name, model in models.items():
            module = model.module(params[name])
            signal = module(test.frames)[:, 1:]
            found[name] = 60 * jnp.abs(heart_rate(signal, per_second) - test.rate).mean()
            found[f"correlation, {name}"] = 1 - negative_pearson(signal, change).mean()
            looks = (module.looks(test.frames) * test.skin).sum((2, 3)).mean()
            found[f"skin, {name}"] = looks / test.skin.mean()
        return found

    return each_seed(lambda own: measure(own, test), params)


def _claims(found: Mapping[str, np.ndarray]) -> list[Claim]:
    guess = 60 * (FASTEST - SLOWEST) / 4
    claims = [
        PAPER.claim(
            "reads", "the pulse can be read: heart rate off by at most half of what the middle "
            "rate is, a minute", guess / 2, float(np.median(found[WHOLE])), "<=",
            because="the middle of all rates is a guess", seeds=found[WHOLE],
        )
    ]  # fmt: skip
    for name, words in (
        (UNMASKED, "a soft mask"), (UNSHIFTED, "shifts in time"), (UNCHANGED, "differences"),
    ):  # fmt: skip
        gain = found[name] - found[WHOLE]
        claims.append(
            PAPER.claim(
                f"{WITHOUT[name]}-helps", f"{words} make the error no larger: error without less "
                "error with, a minute", 0.0, float(np.median(gain)), ">=",
                because="0 is no difference", seeds=gain,
                note=f"{found[name].mean():.2f} without, {found[WHOLE].mean():.2f} with",
            )
        )  # fmt: skip
    skin = found[f"skin, {WHOLE}"]
    claims.append(
        PAPER.claim(
            "finds-skin", "the mask finds the skin: its share there over the skin's share of the "
            "frame", 2.0, float(np.median(skin)), ">=", because="1 is no preference", seeds=skin,
        )
    )  # fmt: skip
    return claims


def _draw(run: Run, found, models, params, test: PulseVideo, per_second: float) -> None:
    figure, axes = panels(1, 2, width=3.8)
    bars(axes[0, 0], {name: found[name] for name in WITHOUT}, "heart rate off by, a minute")
    first = jax.tree.map(lambda leaf: leaf[0], params)
    module = models[WHOLE].module(first[WHOLE])
    signal = np.asarray(module(test.frames[:1]))[0, 1:]
    truth = np.diff(np.asarray(test.pulse[0]))
    seconds = np.arange(1, len(truth) + 1) / per_second
    for color, line, name in ((1, signal, "read"), (0, truth, "true")):
        line = (line - line.mean()) / line.std()
        axes[0, 1].plot(seconds, line, color=COLORS[color], label=name)
    label(axes[0, 1], "seconds", "change of the pulse, standardised")
    run.save_figure(
        figure, "pulse", "Errors of heart rates with and without each part (dots are seeds), and "
        "the signal that is read from one video (seed 0)."
    )  # fmt: skip
    looks = np.asarray(module.looks(test.frames[:1]))[0]
    chosen = np.linspace(0, len(looks) - 1, 6).astype(int)
    figure, axes = panels(2, len(chosen), width=1.2, height=1.3)
    for column, frame in enumerate(chosen):
        axes[0, column].imshow(np.clip(np.asarray(test.frames[0, frame]), 0, 1))
        axes[1, column].imshow(looks[frame], cmap="Blues", vmin=0)
        axes[0, column].set_title(f"{frame / per_second:.1f} s", fontsize=8)
        for axis in axes[:, column]:
            axis.set_axis_off()
    run.save_figure(figure, "masks", "Frames of one video, and where the soft mask looks (seed 0).")
