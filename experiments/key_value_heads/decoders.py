"""Decoders with numbers of key and value heads of their own: training them, a figure."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.functional import cross_entropy, decoder, optimizer
from experiments.plots import COLORS, label, panels
from experiments.token_tasks import backcopies, loss_in_training
from jattn.mechanisms.softmax.diffqkv_attention import cache_size
from jattn.nn import TransformerConfig
from jattn.training import Run, fit


def variants(config) -> dict[str, tuple[int, int]]:
    """Numbers of key heads and of value heads by name."""
    heads, few = config.heads, config.few
    return {"all": (heads, heads), "few keys": (few, heads), "few values": (heads, few)}


def trained(run: Run, config, name: str) -> dict[str, np.ndarray]:
    """Loss `[seeds]`, that of copied tokens alone, and numbers a token that each cache keeps."""
    key_heads, value_heads = variants(config)[name]
    options = {"key_heads": key_heads, "value_heads": value_heads}
    model = decoder(
        TransformerConfig(
            vocab_size=config.vocabulary,
            dim=config.dim,
            heads=config.heads,
            layers=config.layers,
            mechanisms=("diffqkv_attention", options),
            positions="rotary",
        )
    )
    sample = backcopies(config, config.length)
    fit_name = name.replace(" ", "_")
    params = fit(
        model.init,
        lambda params, batch: loss_in_training(model, params, batch),
        sample,
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=fit_name,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(config.steps // 20, 1),
    ).params

    def tested():
        keys = jax.random.split(jax.random.key(config.seed + 1), config.test_size)
        batch = jax.vmap(sample)(keys)
        triggered = (batch.tokens >= 1) & (batch.tokens <= config.triggers)

        @jax.jit
        def measure(params):
            logits = model.module(params)(batch.tokens)
            where = (batch.counts, triggered)
            return jnp.stack([cross_entropy(logits, batch.targets, here) for here in where])

        each = [measure([p[i] for p in params]) for i in range(config.seeds)]
        loss, copied = np.stack(each).T
        size = config.dim // config.heads
        cache = np.array(cache_size(key_heads, value_heads, size, size))
        return {"loss": loss, "copied": copied, "cache": cache}

    return run.cached(fit_name, tested)


def draw(run: Run, rows: dict[str, dict[str, np.ndarray]]) -> None:
    """Saves a figure of the losses, by what the cache keeps."""
    figure, axes = panels(1, 2, width=3.2)
    for axis, field, title in zip(
        axes[0], ("loss", "copied"), ("all tokens", "copied tokens"), strict=True
    ):
        for number, (name, row) in enumerate(rows.items()):
            size = np.full(len(row[field]), row["cache"])
            marker = "os^"[number]
            axis.plot(size, row[field], marker, color=COLORS[number], alpha=0.7, label=name)
        label(axis, "numbers a token in a layer's cache", "nats a token", title)
    run.save_figure(
        figure,
        "loss_by_cache",
        "Loss with all key and value heads, with few of keys, and with few of values; dots are "
        "seeds. The last two keep as much.",
    )
