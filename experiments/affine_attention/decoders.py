"""Decoders of both kinds of attention: training them, what they look at, a figure."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.functional import decoder, optimizer
from experiments.plots import COLORS, label, panels
from experiments.token_tasks import backcopies, loss_in_training, mean_loss
from jattn.lens.sinks import weight_on_position
from jattn.mechanisms.softmax.affine_attention import alpha_of
from jattn.nn import TransformerConfig
from jattn.training import Run, fit

SOFTMAX, AFFINE = MECHANISMS = ("softmax_attention", "affine_attention")


def trained(run: Run, config, mechanism: str) -> dict[str, np.ndarray]:
    """Loss `[seeds]`; weight on the first token, and spread of alpha, `[seeds, layers]`."""
    model = decoder(
        TransformerConfig(
            vocab_size=config.vocabulary,
            dim=config.dim,
            heads=config.heads,
            layers=config.layers,
            mechanisms=mechanism,
            positions="rotary",
        )
    )
    sample = backcopies(config, config.length)
    params = fit(
        model.init,
        lambda params, batch: loss_in_training(model, params, batch),
        sample,
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=mechanism,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(config.steps // 20, 1),
    ).params

    def tested():
        keys = jax.random.split(jax.random.key(config.seed + 1_000_000), config.test_size)
        batch = jax.vmap(sample)(keys)
        at_rest = (batch.tokens > config.triggers)[:, :, None]  # tokens with nothing to copy

        @jax.jit
        def measure(params):
            module = model.module(params)
            x, sinks, spreads = module.embed(batch.tokens), [], []
            for block in module.blocks:
                here, mixer = block.mixer_norm(x), block.mixer
                arrays = mixer.arrays()
                first = weight_on_position(mixer.pair, arrays, here, heads=config.heads)
                sinks.append((first * at_rest).sum() / (at_rest.sum() * config.heads))
                alpha = alpha_of(here, arrays["alpha"]) if "alpha" in arrays else jnp.zeros(1)
                spreads.append(alpha.std())
                x = block(x)
            return mean_loss(model, params, batch), jnp.stack(sinks), jnp.stack(spreads)

        each = [measure([p[seed] for p in params]) for seed in range(config.seeds)]
        return {
            field: np.stack([np.asarray(result[i]) for result in each])
            for i, field in enumerate(("loss", "sink", "spread"))
        }

    return run.cached(mechanism, tested)


def draw(run: Run, rows: dict[str, dict[str, np.ndarray]]) -> None:
    """Saves a figure of weight on the first token, by layer and mechanism."""
    figure, axes = panels(1, 1, width=4.4)
    axis = axes[0, 0]
    for number, (name, row) in enumerate(rows.items()):
        at = np.arange(row["sink"].shape[1]) + 0.36 * (number - 0.5)
        axis.bar(at, row["sink"].mean(0), 0.34, color=COLORS[number], label=name)
        for of_seed in row["sink"]:
            axis.plot(at, of_seed, "k.", markersize=3)
    layers = range(rows[SOFTMAX]["sink"].shape[1])
    axis.set_xticks(layers, [f"layer {layer + 1}" for layer in layers])
    axis.axhline(0, color="black", linewidth=0.6)
    label(axis, "", "weight on the first token")
    run.save_figure(
        figure,
        "first_token",
        "Mean weight on the first token of tokens that have nothing to copy, scale and shift of "
        "affine-scaled attention included. Dots are seeds.",
    )
