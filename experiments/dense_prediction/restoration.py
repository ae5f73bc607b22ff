"""Degraded digits: which gates and mixers make a U-Net restore them better."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classifier_arms import each_seed, init_of
from experiments.dense_prediction.far import nets, optimizer_of_each
from experiments.margins import bar
from experiments.plots import bars, panels
from jattn.tasks.images import images
from jattn.training import Claim, Paper, Run, UsageError, fit

MAXIM = Paper("arXiv 2201.02973", "MAXIM")
GUIDE = Paper("arXiv 2505.00687", "GuideSR")
NONE, CHANNEL, AXES, SUPERVISED, ALL = (
    "none", "channel attention", "multi-axis", "supervised", "all three",
)  # fmt: skip


def arms(settings) -> dict[str, dict[str, Any]]:
    """Options of the U-Net by the name of the arm."""
    gate = {"gate": ("se", {"reduction": 4})}
    mixers = {"mixers": (("multi_axis_gmlp", {"block": settings.block, "grid": settings.block}),)}
    supervise = {"supervise": True}
    return {
        NONE: {}, CHANNEL: gate, AXES: mixers, SUPERVISED: supervise,
        ALL: gate | mixers | supervise,
    }  # fmt: skip


def degraded(key: jax.Array, image: jax.Array, noise: float) -> jax.Array:
    """An image at half its size and back, and noise.

    Args:
        key: a PRNG key.
        image: `[y, x, c]`, 0 to 1.
        noise: standard deviation.
    """
    y, x, c = image.shape
    small = jax.image.resize(image, (y // 2, x // 2, c), "linear")
    return jax.image.resize(small, image.shape, "linear") + noise * jax.random.normal(
        key, image.shape
    )


def restoration(run: Run, config) -> list[Claim]:
    """Trains all arms on the same digits, and measures new ones."""
    settings = config.restoration
    models = nets("restoration", arms(settings), outputs=1, widths=tuple(settings.widths))
    try:
        found = images(settings.dataset)
    except ValueError as error:
        raise UsageError(f"restoration: {error}") from None
    # Twice the sides, so that there are levels to go down.
    larger = lambda x: jax.image.resize(
        jnp.asarray(x), (len(x), 2 * x.shape[1], 2 * x.shape[2], 1), "linear"
    )
    train, test = larger(found.train), larger(found.test[: settings.test])

    def sample(key):
        of_index, of_noise = jax.random.split(key)
        clean = train[jax.random.randint(of_index, (), 0, len(train))]
        return degraded(of_noise, clean, settings.noise), clean

    def loss(params, batch):
        given, clean = batch
        total = jnp.zeros(())
        for name, model in models.items():
            out = model.module(params[name])(given)
            total = total + ((out.values - clean) ** 2).mean()
            if out.restored is not None:
                total = total + ((out.restored - clean) ** 2).mean()
        return total

    params = fit(
        init_of(models), loss, sample, optimizer_of_each(models, settings), run=run,
        name="restoration", seeds=config.seeds, steps=settings.steps,
        batch_size=settings.batch_size, seed=config.seed, log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    keys = jax.random.split(jax.random.key(config.seed + 1), len(test))
    given = jax.vmap(lambda k, x: degraded(k, x, settings.noise))(keys, test)
    measured = run.cached("restoration", lambda: _ratios(models, params, given, test))
    before = float(_psnr(given, test))
    run.note(f"degraded: {before:.2f} dB")
    for name, model in models.items():
        run.note(f"{name}: {measured[name].mean():.2f} dB, {model.parameters:,} parameters")
    _draw(run, measured, before, models, params, given, test)
    return _claims(measured, before)


def _psnr(x: jax.Array, clean: jax.Array) -> jax.Array:
    """Mean of the images' peak signal-to-noise ratios in dB; the peak is 1."""
    return (-10 * jnp.log10(((x - clean) ** 2).mean((1, 2, 3)))).mean()


def _ratios(models, params, given, clean) -> dict[str, np.ndarray]:
    @jax.jit
    def measure(params, given, clean):
        return {n: _psnr(_restored(m, params[n], given), clean) for n, m in models.items()}

    return each_seed(lambda own: measure(own, given, clean), params)


def _restored(model, params, given: jax.Array) -> jax.Array:
    module = model.module(params)
    return jax.lax.map(lambda x: module(x[None]).values[0], given, batch_size=50)


def _claims(found: Mapping[str, np.ndarray], before: float) -> list[Claim]:
    plain = found[NONE]
    gain = plain - before
    claims = [
        MAXIM.claim(
            "restores", "the net restores: dB above what is degraded", 1.0,
            float(np.median(gain)), ">=", because="1 dB is a fifth less error", seeds=gain,
        )
    ]  # fmt: skip
    rows = (
        (GUIDE, CHANNEL, "channel-gate", "channel attention"),
        (MAXIM, AXES, "multi-axis-restores", "gating over blocks and a grid"),
        (MAXIM, SUPERVISED, "supervised", "a restored image that gates"),
        (MAXIM, ALL, "together", "all three"),
    )
    for paper, arm, name, words in rows:
        claims.append(
            paper.claim(
                name, f"{words} restores more: dB", bar(plain, found[arm], 0.0),
                float(found[arm].mean()), ">=", seeds=found[arm],
                because="it is what the net without has, and two standard errors",
                note=f"{found[arm].mean() - plain.mean():+.2f} dB",
            )
        )  # fmt: skip
    return claims


def _draw(run: Run, measured, before: float, models, params, given, clean) -> None:
    figure, axes = panels(1, 1, width=4.6, height=2.6)
    axes[0, 0].axvline(before, color="black", linestyle="--", linewidth=0.8, label="degraded")
    bars(axes[0, 0], {name: measured[name] for name in models}, "peak signal-to-noise ratio, dB")
    axes[0, 0].set_xlim(before - 1)
    run.save_figure(figure, "restoration", "Digits restored by a U-Net with one more thing each; "
                    "dots are seeds.")  # fmt: skip
    first = jax.tree.map(lambda leaf: leaf[0], params)
    by = {name: _restored(models[name], first[name], given[:4]) for name in (NONE, ALL)}
    columns = {"degraded": given[:4], **by, "true": clean[:4]}
    figure, axes = panels(4, len(columns), width=1.1, height=1.2)
    for column, (name, shown) in enumerate(columns.items()):
        axes[0, column].set_title(name, fontsize=8)
        for row in range(4):
            axes[row, column].imshow(np.asarray(shown[row, ..., 0]), cmap="gray_r", vmin=0, vmax=1)
            axes[row, column].set_axis_off()
    run.save_figure(figure, "restored_images", "Digits as they are given, restored, and as they "
                    "were (seed 0).")  # fmt: skip
