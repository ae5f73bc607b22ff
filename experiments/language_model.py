"""The trained language model that experiments look into: loading it, texts, programs, training."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from jattn import lens
from jattn.nn import Llama, lora_merge
from jattn.pretrained.smollm2 import NAME, smollm2_path
from jattn.pretrained.tokenizer import Tokenizer
from jattn.training import UsageError


class LanguageModel(NamedTuple):
    """A model and its tokenizer."""

    model: Llama
    tokenizer: Any


class Texts(NamedTuple):
    """Texts of some lengths, padded behind: where attention is causal nothing sees that.

    Attributes:
        tokens: `[n, t]`.
        last: index of each one's last token.
    """

    tokens: Int[Array, "n t"]
    last: Int[Array, " n"]


@functools.cache
def language_model(path: str = NAME) -> LanguageModel:
    """A language model, read once.

    Args:
        path: a name of one that is installed, a GGUF file, or a local folder of Hugging Face with
            a `tokenizer.json`.

    Raises:
        UsageError: it is not there, or cannot be used.
    """
    try:
        if path != NAME and Path(path).is_dir():
            return LanguageModel(Llama.from_safetensors(path), Tokenizer.from_folder(path))
        file = smollm2_path() if path == NAME else path
        return LanguageModel(Llama.from_gguf(file), Tokenizer.from_gguf(file))
    except (ImportError, ValueError, OSError) as error:
        raise UsageError(f"model: {' '.join(str(error).split())}") from error


def texts_of(tokenizer: Any, texts: Sequence[str]) -> Texts:
    """Texts as tokens; see `Texts`."""
    tokens, mask = tokenizer.batch(texts)
    return Texts(jnp.asarray(tokens), jnp.asarray(mask.sum(1) - 1))


def last_of(tokens: Int[Array, "b t"]) -> Int[Array, " b"]:
    """The last token of texts that are equally long."""
    return jnp.full(len(tokens), tokens.shape[1] - 1)


def first_tokens(tokenizer: Any, words: Sequence[str]) -> Int[Array, " n"]:
    """The first token of each word, a space in front of it: what comes next in a sentence."""
    return jnp.array([tokenizer.encode(f" {word}")[0] for word in words])


def program(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function `(model, *arrays)` compiled with weights as arguments, not as constants in it."""

    @functools.partial(jax.jit, static_argnums=0)
    def inner(config, weights, *args, **options):
        return function(Llama(config, weights=weights), *args, **options)

    @functools.wraps(function)
    def outer(model, *args, **options):
        return inner(model.config, model.arrays(), *args, **options)

    return outer


@program
def next_logits(model: Llama, texts: Texts, edits: Sequence[lens.Edit] = ()) -> Array:
    """Logits of what comes behind each text, `[n, vocab]`."""
    return lens.run(model, texts.tokens, edits=edits, at=texts.last)[0]


def minimizer(
    loss: Callable[[Llama, Any, Any, Any], Float[Array, ""]],
    optimizer: optax.GradientTransformation,
    *,
    together: bool = False,
) -> Callable[..., tuple[Any, np.ndarray]]:
    """A training loop of few parameters beside a frozen model, all steps in one program.

    Args:
        loss: `(model, params, given, batch) -> scalar`.
        optimizer: an optax gradient transformation.
        together: several trainings side by side, each with parameters, `given` and batches of its
            own: the frozen weights are then read once for all of them.

    Returns:
        `(model, params, given, batches) -> (params, losses)`; batches are stacked `[steps, ...]`,
        `given` is the same at every step. Together, all have an axis of trainings in front.
    """

    def train(model, params, given, batches):
        def step(state, batch):
            params, memory = state
            value, grads = jax.value_and_grad(lambda p: loss(model, p, given, batch))(params)
            updates, memory = optimizer.update(grads, memory, params)
            return (optax.apply_updates(params, updates), memory), value

        (params, _), losses = lax.scan(step, (params, optimizer.init(params)), batches)
        return params, losses

    def side_by_side(model, *arrays):
        return jax.vmap(functools.partial(train, model))(*arrays)

    return program(side_by_side if together else train)


def with_adapters(model: Llama, adapters: Any, scale: float = 1.0) -> Llama:
    """The model with adapters of its layers merged in."""
    weights = model.arrays()
    layers = lora_merge(weights["layers"], adapters, scale=scale)
    return Llama(model.config, weights={**weights, "layers": layers})


def batches_of(rng: np.random.Generator, data: Any, steps: int, size: int) -> Any:
    """Batches `[steps, size, ...]` of examples, in a new order each time all have been seen."""
    count = len(jax.tree.leaves(data)[0])
    rounds = -(-steps * size // count)
    order = np.concatenate([rng.permutation(count) for _ in range(rounds)])
    index = order[: steps * size].reshape(steps, size)
    return jax.tree.map(lambda x: jnp.asarray(x)[index], data)


def random_heads(rng: np.random.Generator, layers: int, heads: int, count: int) -> Array:
    """A mask `[L, h]` of so many heads, drawn anew each time: what chosen ones must beat."""
    mask = np.zeros(layers * heads, bool)
    mask[rng.permutation(layers * heads)[:count]] = True
    return jnp.asarray(mask.reshape(layers, heads))


def top_heads(scores: Float[Array, "L h"], count: int) -> Array:
    """A mask `[L, h]` of the heads with the largest scores."""
    rank = jnp.argsort(jnp.argsort(-scores, axis=None)).reshape(scores.shape)
    return rank < count


def whole(tokenizer: Any, words: Sequence[str]) -> list[str]:
    """Those of the words that are one token behind a space: texts with them are equally long."""
    return [word for word in words if len(tokenizer.encode(f" {word}")) == 1]


@program
def reads_at_last(model: Llama, texts: Texts, edits: Sequence[lens.Edit] = ()) -> Array:
    """What heads read at the last token of each text, `z` `[n, L, h, d]`."""
    z = lens.run(model, texts.tokens, edits=edits, record=("z",))[1]["z"]
    return jnp.moveaxis(z[:, jnp.arange(len(texts.last)), texts.last], 1, 0)
