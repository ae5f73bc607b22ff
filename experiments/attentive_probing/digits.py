"""All poolers on one frozen encoder, which was trained here to fill in hidden patches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jattn
from experiments.attentive_probing.probes import MEAN, PAPER, QUERIES, maps_of, probes
from experiments.classifier_arms import accuracies, entries_of, init_of, loss_of
from experiments.functional import as_functions, optimizer
from experiments.margins import bar
from experiments.patch_filling import Filler, filling_loss, hidden_patches
from experiments.plots import COLORS, label, panels
from jattn.nn import VisionTransformerConfig
from jattn.tasks.images import Images, images
from jattn.training import Claim, Run, UsageError, fit

OURS = f"{QUERIES}8"
# Sizes of a base transformer, at which operations are compared; the paper has 32 queries there.
BASE: Any = dict(dim=768, tokens=196, calls=0)


def digits(run: Run, config) -> list[Claim]:
    """Trains and freezes the encoder, and trains a probe with each pooler on it."""
    settings = config.digits
    try:
        found = images(settings.dataset)
        height, width, channels = found.train.shape[1:]
        sizes = VisionTransformerConfig(
            classes=1, height=height, width=width, channels=channels, patch=settings.patch,
            dim=settings.dim, heads=settings.heads, layers=settings.layers,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"digits: {error}") from None
    encode = _encoder(run, config, found, sizes)
    train, test = encode(found.train), encode(found.test)
    classes = jnp.asarray(found.train_labels)
    models = probes(settings.pools, dim=settings.dim, classes=10)

    def sample(key):
        index = jax.random.randint(key, (), 0, len(train))
        return train[index], classes[index]

    params = fit(
        init_of(models), loss_of(models), sample,
        optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.steps)), run=run,
        name="probes", seeds=config.seeds, steps=settings.steps, batch_size=settings.batch_size,
        seed=config.seed, log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    accuracy = run.cached(
        "digits", lambda: accuracies(models, params, test, jnp.asarray(found.test_labels))
    )
    cost = run.cached("costs", lambda: _costs(settings, train.shape[1]))
    for row, (name, values) in enumerate(accuracy.items()):
        run.note(
            f"{name}: accuracy {values.mean():.4f}, {cost['parameters'][row]:,} parameters, "
            f"{cost['kflop'][row]:.1f} kFLOP"
        )
    _draw(run, accuracy, cost)
    if OURS in params:
        queries = models[OURS].module(jax.tree.map(lambda x: x[0], params[OURS])).pool.arrays()
        _draw_maps(run, found.test[:6], maps_of(queries["queries"], test[:6]), settings.patch)
    return _claims(accuracy, cost, run.cached("base_costs", _at_base_size)["ratio"])


def _encoder(run: Run, config, found: Images, sizes: VisionTransformerConfig):
    """Trains the encoder; returns images to tokens, `[n, t, m]`."""
    settings = config.digits
    model = as_functions(lambda rngs: Filler(sizes, rngs=rngs))
    pixels = jnp.asarray(found.train)

    def sample(key):
        of_index, of_hidden = jax.random.split(key)
        hidden = hidden_patches(of_hidden, total=sizes.patches, hidden=settings.hidden)
        return pixels[jax.random.randint(of_index, (), 0, len(pixels))], hidden

    def loss(params, batch):
        return filling_loss(model.module(params), batch, settings.patch)

    params = fit(
        model.init, loss, sample, optimizer(settings.encoder_rate, settings.encoder_steps),
        run=run, name="encoder", seeds=1, steps=settings.encoder_steps,
        batch_size=settings.batch_size, seed=config.seed,
        log_every=max(settings.encoder_steps // 10, 1),
    ).params  # fmt: skip
    one = [np.asarray(leaf)[0] for leaf in params]
    tokens = jax.jit(lambda images: model.module(one).encoder.tokens(images))
    return lambda images: tokens(jnp.asarray(images))


def _costs(settings, tokens: int) -> dict[str, np.ndarray]:
    """Parameters and thousands of operations for one image, the read-out apart."""
    pools = [pool for _, pool in entries_of(settings.pools)]
    rows = iter(jattn.zoo.table([p for p in pools if p], dim=settings.dim, tokens=tokens, calls=0))
    of_mean = (0, float(settings.dim * tokens))
    pairs = [of_mean if pool is None else _pair(next(rows)) for pool in pools]
    return {
        "parameters": np.array([p for p, _ in pairs]),
        "kflop": np.array([f for _, f in pairs]) / 1e3,
    }


def _pair(row) -> tuple[int, float]:
    return row.parameters, row.flops


def _at_base_size() -> dict[str, np.ndarray]:
    """How many times the operations of efficient probing a learned query's attention has."""
    pools = [("aim_pooling", {}), ("efficient_probing", {"queries": 32})]
    theirs, ours = (row.flops for row in jattn.zoo.table(pools, **BASE))
    return {"ratio": np.array(theirs / ours)}


def _claims(accuracy: dict[str, np.ndarray], cost, ratio: np.ndarray) -> list[Claim]:
    claims = [
        PAPER.claim(
            "base-operations", "at the size of ViT-B attention pooling with keys' and values' maps "
            "takes ten times the operations of efficient probing and more: ratio", 10.0,
            float(ratio), ">=", where="abstract",
        )
    ]  # fmt: skip
    if OURS not in accuracy:
        return claims
    own = accuracy[OURS]
    if MEAN in accuracy:
        claims.append(
            PAPER.claim(
                "above-mean", "8 queries read a frozen encoder better than the mean: accuracy",
                bar(accuracy[MEAN], own, 0.1), float(own.mean()), ">=", where="table 1",
                because="it is what the mean has, and two standard errors",
                note=f"{accuracy[MEAN].mean():.4f} for the mean", seeds=own,
            )
        )  # fmt: skip
    names = list(accuracy)
    parameters = dict(zip(names, cost["parameters"], strict=True))
    rivals = [n for n in names if not n.startswith(QUERIES)]
    smaller = [n for n in rivals if parameters[n] <= parameters[OURS]]
    larger = [n for n in rivals if parameters[n] > parameters[OURS]]
    best = lambda chosen: max(chosen, key=lambda n: accuracy[n].mean())
    if smaller:
        name = best(smaller)
        gain = own - accuracy[name]
        claims.append(
            PAPER.claim(
                "frontier", "no pooler with as few parameters is better: difference to the best",
                0.0, float(np.median(gain)), ">=", because="0 is no difference",
                note=f"{name} {accuracy[name].mean():.4f}, {OURS} {own.mean():.4f}", seeds=gain,
            )
        )  # fmt: skip
    if larger:
        name = best(larger)
        gain = own - accuracy[name]
        claims.append(
            PAPER.claim(
                "larger", "nor is one with more better by more than a hundredth: difference to "
                "the best", -0.01, float(np.median(gain)), ">=",
                because="a hundredth is about four of these test images",
                note=f"{name} {accuracy[name].mean():.4f}", seeds=gain,
            )
        )  # fmt: skip
    return claims


def _draw(run: Run, accuracy: dict[str, np.ndarray], cost) -> None:
    figure, axes = panels(1, 2, width=4.6, height=3.4)
    for axis, field, name in (
        (axes[0, 0], "parameters", "parameters of the pool (1: none)"),
        (axes[0, 1], "kflop", "kFLOP an image"),
    ):
        for row, (entry, values) in enumerate(accuracy.items()):
            color = COLORS[1] if entry.startswith(QUERIES) else COLORS[0]
            x, y = max(cost[field][row], 1), values.mean()
            axis.plot([x] * len(values), values, ".", ms=3, color=color, alpha=0.5)
            axis.plot(x, y, "o", ms=5, color=color)
            text = entry.replace(QUERIES, "EP ").replace("cross_attention_pooling:form=", "")
            axis.annotate(text.removesuffix("_pooling"), (x, y), fontsize=5, rotation=25)
        axis.set_xscale("log")
        label(axis, name, "accuracy")
    run.save_figure(
        figure, "poolers", "Accuracy of probes of one frozen encoder by their pools' parameters "
        "and operations; small dots are seeds.",
    )  # fmt: skip


def _draw_maps(run: Run, shown: np.ndarray, maps: jax.Array, patch: int) -> None:
    rows, columns = shown.shape[1] // patch, shown.shape[2] // patch
    figure, axes = panels(len(shown), 1 + maps.shape[1], width=0.8, height=0.85)
    for row, (image, own) in enumerate(zip(shown, np.asarray(maps), strict=True)):
        axes[row, 0].imshow(image[..., 0], cmap="gray_r")
        for axis, each in zip(axes[row, 1:], own, strict=True):
            axis.imshow(each.reshape(rows, columns), cmap="Blues", vmin=0)
        for axis in axes[row]:
            axis.set_axis_off()
    run.save_figure(
        figure, "maps", "Digits, and where each of 8 queries of efficient probing looks (seed 0)."
    )
