"""Where an encoder keeps which object a patch belongs to, and what it loses without."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.classifier_arms import each_seed
from experiments.functional import as_functions, optimizer
from experiments.object_binding import probes
from experiments.object_binding.probes import CLASS, LINEAR, PAPER, PROBES, QUADRATIC
from experiments.patch_filling import Filler, covered, filling_error, filling_loss, hidden_patches
from experiments.plots import COLORS, label, panels
from jattn.lens.object_binding import binding_subspace, swap_subspace
from jattn.nn import VisionTransformer, VisionTransformerConfig
from jattn.nn.patches import patches
from jattn.tasks.look_alikes import look_alikes
from jattn.tasks.scenes import RGB, SIDE
from jattn.training import Claim, Run, UsageError, fit


def encoder(run: Run, config) -> list[Claim]:
    """Trains an encoder and probes of all its layers; exchanges what the best probe reads."""
    settings = config.encoder
    try:
        sizes = VisionTransformerConfig(
            classes=1, height=SIDE, width=SIDE, channels=3, patch=settings.patch, dim=settings.dim,
            heads=settings.heads, layers=settings.layers,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"encoder.{error}") from None
    model = as_functions(lambda rngs: Filler(sizes, rngs=rngs))
    draw = lambda key: look_alikes(key, patch=settings.patch)
    hide = lambda key: hidden_patches(key, total=sizes.patches, hidden=settings.hidden)

    def shown_and_hidden(key):
        of_image, of_hidden = jax.random.split(key)
        return draw(of_image).image, hide(of_hidden)

    params = fit(
        model.init, lambda params, batch: filling_loss(model.module(params), batch, settings.patch),
        shown_and_hidden, optimizer(settings.encoder_rate, settings.encoder_steps), run=run,
        name="encoder", seeds=1, steps=settings.encoder_steps, batch_size=settings.batch_size,
        seed=config.seed, log_every=max(settings.encoder_steps // 10, 1),
    ).params  # fmt: skip
    trained = [np.asarray(leaf)[0] for leaf in params]

    def init(key):
        keys = jax.random.split(key, settings.layers + 1)
        return jax.vmap(lambda k: probes.init(k, settings.dim, len(RGB)))(keys)

    def loss(params, batch):
        states = layers_of(model.module(trained).encoder, batch.image)
        each = jax.vmap(probes.loss, (0, 0, None, None))(
            params, states, batch.objects, batch.colors
        )
        return each.sum()

    fitted = fit(
        init, loss, draw, optax.adam(settings.learning_rate), run=run, name="probes",
        seeds=config.seeds, steps=settings.steps, batch_size=settings.batch_size, seed=config.seed,
        log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    keys = jax.random.split(jax.random.key(config.seed + 1), settings.test)
    test, hidden = jax.vmap(draw)(keys), jax.vmap(hide)(keys)

    @jax.jit
    def measured(own, trained):
        filler = model.module(trained)
        states = layers_of(filler.encoder, test.image)
        found = jax.vmap(probes.accuracies, (0, 0, None))(own, states, test.objects)
        return {**found, **_ablated(filler, own, test.image, hidden, settings)}

    found = run.cached("binding", lambda: each_seed(lambda own: measured(own, trained), fitted))
    for name in PROBES:
        text = ", ".join(f"{value:.3f}" for value in found[name].mean(0))
        run.note(f"{name}: balanced accuracy by layer {text}")
    _draw(run, found)
    _draw_pairs(run, model.module(trained), fitted, found, test)
    return _claims(found)


def layers_of(encoder: VisionTransformer, images: jax.Array) -> jax.Array:
    """Patches at the embedding and behind every block, normed, `[layers + 1, b, t, m]`."""
    states = [_embedded(encoder, images)]
    for block in encoder.blocks:
        states.append(block(states[-1]))
    return jnp.stack([encoder.norm(x) for x in states])


def _embedded(encoder: VisionTransformer, images: jax.Array) -> jax.Array:
    x = encoder.embed(patches(images, encoder.patch))
    return x + encoder.places(jnp.arange(x.shape[1]))


def _ablated(filler: Any, own, images, hidden, settings) -> dict[str, jax.Array]:
    """Errors of filling as it is, and with coordinates exchanged between patches at each layer.

    Those in the subspace of the layer's probe, and those in a random one of the same rank.
    """
    encoder = filler.encoder
    shown = covered(images, hidden, settings.patch)
    error = lambda x: filling_error(filler.fill(encoder.norm(x)), images, hidden, settings.patch)
    order = jax.vmap(lambda key: jax.random.permutation(key, hidden.shape[1]))(
        jax.random.split(jax.random.key(0), len(images))
    )

    def rest(x, layer):
        for block in encoder.blocks[layer:]:
            x = block(x)
        return error(x)

    found, x = {"bound": [], "random": []}, _embedded(encoder, shown)
    for layer in range(len(encoder.blocks) + 1):
        bases = {
            "bound": binding_subspace(own[QUADRATIC][layer], settings.rank),
            "random": jnp.linalg.qr(
                jax.random.normal(jax.random.key(layer), (settings.dim, settings.rank))
            )[0],
        }
        for name, basis in bases.items():
            found[name].append(rest(jax.vmap(swap_subspace, (0, None, 0))(x, basis, order), layer))
        if layer < len(encoder.blocks):
            x = encoder.blocks[layer](x)
    return {"whole": error(x), **{name: jnp.stack(each) for name, each in found.items()}}


def _claims(found: dict[str, np.ndarray]) -> list[Claim]:
    best = int(found[QUADRATIC].mean(0).argmax())
    own = found[QUADRATIC][:, best]
    over_linear = own - found[LINEAR][:, best]
    over_class = own - found[CLASS][:, best]
    over_embedding = own - found[QUADRATIC][:, 0]
    lost = (found["bound"] - found["random"]) / found["whole"][:, None]
    inside = lost[:, best]
    before = "that was expected before training"
    return [
        PAPER.claim(
            "emerges", f"which object a patch belongs to can be read, best behind layer {best}: "
            "balanced accuracy", 0.9, float(np.median(own)), ">=", where="abstract", seeds=own,
        ),
        PAPER.claim(
            "emerges-products", "by products and not by sums: above the linear probe", 0.15,
            float(np.median(over_linear)), ">=", because=before, seeds=over_linear,
        ),
        PAPER.claim(
            "emerges-not-colour", "not by colour alone: above the class's", 0.05,
            float(np.median(over_class)), ">=", because=before, seeds=over_class,
        ),
        PAPER.claim(
            "deeper", "layers add to what patches and their places give: above the embedding's",
            0.02, float(np.median(over_embedding)), ">=", because="0.02 is seen in a figure",
            seeds=over_embedding,
        ),
        PAPER.claim(
            "needed", "hidden patches are filled worse without that subspace than without a "
            f"random one of the same rank, behind layer {best}: difference in errors as they are",
            0.1, float(np.median(inside)), ">=", because="a tenth is seen", seeds=inside,
            note="by layer " + ", ".join(f"{r:.2f}" for r in np.median(lost, 0)),
        ),
    ]  # fmt: skip


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.6)
    layers = np.arange(found[QUADRATIC].shape[1])
    for color, name in enumerate(PROBES):
        axes[0, 0].plot(layers, found[name].mean(0), "o-", ms=3, color=COLORS[color], label=name)
    label(axes[0, 0], "layer (0: embedding)", "balanced accuracy")
    names = {"bound": "of the probe's subspace", "random": "of a random one"}
    for color, (key, name) in enumerate(names.items()):
        axes[0, 1].plot(layers, found[key].mean(0), "o-", ms=3, color=COLORS[color], label=name)
    whole = float(found["whole"].mean())
    axes[0, 1].axhline(whole, color="black", linestyle="--", linewidth=0.8, label="as it is")
    label(axes[0, 1], "layer of the exchange", "error of hidden patches")
    run.save_figure(
        figure, "binding", "Which object a patch belongs to, by probe and layer; and what filling "
        "loses when coordinates are exchanged between patches.",
    )  # fmt: skip


def _draw_pairs(run: Run, filler, fitted, found, test) -> None:
    best = int(found[QUADRATIC].mean(0).argmax())
    own = {name: leaf[0, best] for name, leaf in fitted.items()}
    states = layers_of(filler.encoder, test.image[:4])[best]
    scores = np.asarray(jax.nn.sigmoid(probes.pair_logits(own, states)[QUADRATIC]))
    side = round(scores.shape[1] ** 0.5)
    figure, axes = panels(2, len(scores), width=1.5, height=1.6)
    for image in range(len(scores)):
        asked = int(np.argmax(np.asarray(test.objects[image]) == 0))
        axes[0, image].imshow((np.asarray(test.image[image]) + 1) / 2)
        axes[1, image].imshow(scores[image, asked].reshape(side, side), vmin=0, vmax=1)
        row, column = divmod(asked, side)
        axes[1, image].plot(column, row, "s", ms=7, mfc="none", color=COLORS[1])
        for axis in axes[:, image]:
            axis.set_axis_off()
    run.save_figure(
        figure, "pairs", "Look-alikes, and how much each patch seems to belong with the framed one "
        "to the quadratic probe of the best layer.",
    )  # fmt: skip
