"""Decoders with a variant of attention in all layers or every other one, trained on text."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.functional import Model, cross_entropy, decoder, optimizer
from experiments.token_tasks import Task, make_task
from jattn.nn import TransformerConfig
from jattn.nn.streams import apply_with_stream, without_layers
from jattn.training import Run, fit

STANDARD = "softmax_attention"
# name -> mechanism, and the stream that its weights are of, where that is not the hidden state
VARIANTS: dict[str, tuple[str, str]] = {
    "mlp": ("gated_mlp", ""),
    "approximate": ("taylor_attention", ""),
    "non-approximate": ("key_only_attention", ""),
    "random": ("decoupled_attention", "noise"),
    "fixed": ("decoupled_attention", "text"),
    "static": ("decoupled_attention", "embeddings"),
}


class Decoder(NamedTuple):
    """A decoder.

    Attributes:
        settings: its configuration.
        model: as pure functions.
        stream: "", "noise", "text" or "embeddings".
        variant_layers: which layers are the variant, counted from 0.
    """

    settings: TransformerConfig
    model: Model
    stream: str
    variant_layers: tuple[int, ...]


def make(config, task: Task, variant: str | None, form: str) -> Decoder:
    """The standard decoder (None), or one with a variant in all layers or the first, third, ..."""
    mechanism, stream = VARIANTS[variant] if variant else (STANDARD, "")
    step = 2 if form == "hybrid" else 1
    chosen = tuple(range(0, config.layers, step))
    settings = TransformerConfig(
        vocab_size=task.vocabulary,
        dim=config.dim,
        heads=config.heads,
        layers=config.layers,
        mechanisms=[mechanism if i in chosen else STANDARD for i in range(config.layers)],
        mlp_ratio=config.mlp_ratio,
        max_length=config.text_length,
    )
    return Decoder(settings, decoder(settings), stream, chosen)


def trained(run: Run, config, variant: str | None, form: str) -> dict[str, np.ndarray]:
    """Loss on held-out text, `[seeds]`; of a hybrid also `skip`, without the variant's layers."""
    task = make_task("text", config)
    made = make(config, task, variant, form)
    stream = fixed_stream(made, config, task)

    def logits_of(module, tokens):
        if not made.stream:
            return module(tokens)
        return apply_with_stream(module, made.settings, tokens, stream=stream)

    def loss(params, batch):
        logits = logits_of(made.model.module(params), batch.tokens)
        return cross_entropy(logits, batch.targets, batch.counts)

    label_of_fit = f"{variant or 'standard'}_{form}"
    params = fit(
        made.model.init,
        loss,
        task.sample,
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=label_of_fit,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(config.steps // 20, 1),
    ).params

    def tested():
        keys = jax.random.split(jax.random.key(config.seed + 1_000_000), config.test_size)
        batch = jax.vmap(task.test(config.text_length))(keys)

        @jax.jit
        def measure(params):
            found = {"loss": loss(params, batch)}
            if form == "hybrid":
                shorter = without_layers(made.model.module(params), made.variant_layers)
                logits = shorter(batch.tokens)
                found["skip"] = cross_entropy(logits, batch.targets, batch.counts)
            return found

        each = [measure([p[seed] for p in params]) for seed in range(config.seeds)]
        return {name: np.stack([np.asarray(one[name]) for one in each]) for name in each[0]}

    return run.cached(label_of_fit, tested)


def fixed_stream(made: Decoder, config, task: Task) -> Any:
    """A stretch of the text `[1, t]`, or noise `[1, t, m]` as wide as embeddings; else None."""
    key = jax.random.key(config.seed + 2_000_000)
    if made.stream == "text":
        return task.sample(key).tokens[None]
    if made.stream == "noise":
        embedding = made.model.module(made.model.init(key)).embed.embedding[...]
        return jnp.std(embedding) * jax.random.normal(key, (1, config.text_length, config.dim))
    return None
