"""Small Llamas of made words, for experiments whose world is a few hundred tokens."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Int

from experiments.functional import cross_entropy, optimizer
from jattn.nn import Llama, LlamaConfig
from jattn.nn.llama import Weights, llama_init
from jattn.training import Run, UsageError, fit


class Lesson(NamedTuple):
    """Tokens to learn from, padded behind, and which of them are learned.

    Attributes:
        tokens: `[*b, t]`.
        counts: True = to be predicted from those before it.
    """

    tokens: Int[Array, "*b t"]
    counts: Bool[Array, "*b t"]


def word_model(config, vocabulary: int) -> LlamaConfig:
    """Sizes of a model; `config` has dim, heads, layers and hidden.

    Raises:
        UsageError: sizes that do not fit.
    """
    try:
        return LlamaConfig(
            vocab_size=vocabulary, dim=config.dim, layers=config.layers, heads=config.heads,
            kv_heads=config.heads, hidden=config.hidden,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from None


def lesson_loss(model: Llama, lesson: Lesson) -> Array:
    """Mean of -log p over the tokens that count, in nats."""
    logits = model(lesson.tokens)[:, :-1]
    return cross_entropy(logits, lesson.tokens[:, 1:], lesson.counts[:, 1:])


def taught(
    run: Run,
    config,
    llama: LlamaConfig,
    sample: Callable[[jax.Array], Lesson],
    *,
    name: str,
    seed: int,
) -> Weights:
    """Weights of a model that has learned from a sampler of lessons.

    Args:
        run: the open workdir.
        config: has steps, batch_size and learning_rate.
        llama: sizes of the model.
        sample: `(key) -> Lesson`, of one sequence.
        name: of the fit.
        seed: of weights and lessons.
    """
    steps = config.steps
    found = fit(
        lambda key: llama_init(key, llama),
        lambda weights, lesson: lesson_loss(Llama(llama, weights=weights), lesson),
        sample, optimizer(config.learning_rate, steps), run=run, name=name, seeds=1, steps=steps,
        batch_size=config.batch_size, seed=seed, log_every=max(steps // 10, 1),
    )  # fmt: skip
    return jax.tree.map(lambda leaf: leaf[0], found.params)


def descended(
    loss: Callable[[Any, Any], Array], params: Any, batches: Any, rate: optax.GradientTransformation
) -> tuple[Any, Array]:
    """Parameters after a step on each of some batches, stacked `[steps, ...]`, and the losses."""

    def step(state, batch):
        now, memory = state
        value, gradient = jax.value_and_grad(loss)(now, batch)
        updates, memory = rate.update(gradient, memory, now)
        return (optax.apply_updates(now, updates), memory), value

    (params, _), losses = lax.scan(step, (params, rate.init(params)), batches)
    return params, losses


def packed(rows: Sequence[Sequence[int]], length: int | None = None) -> tuple[np.ndarray, ...]:
    """Rows of tokens padded behind with 0, and their lengths."""
    sizes = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), length or int(sizes.max(initial=1))), np.int32)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    return tokens, sizes


def require_counts(config, least: dict[str, int]) -> None:
    """Refuses numbers that are too small, in one line each.

    Raises:
        UsageError: the first of them.
    """
    for field, bound in least.items():
        if config[field] < bound:
            raise UsageError(f"{field}: expected at least {bound}, got {config[field]}")
