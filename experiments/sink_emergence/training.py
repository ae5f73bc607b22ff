"""Training all arms in one program, and what is looked at meanwhile."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.arms import adamw, copies
from experiments.functional import cross_entropy
from experiments.sink_emergence import network
from experiments.sink_emergence.arm import Arm, arrays
from jattn.lens.sinks import importance
from jattn.tasks.backcopy import backcopy, bigrams
from jattn.tasks.text import byte_tokens, english_text, windows
from jattn.training import Paper, Run, fit

PAPER = Paper("arXiv 2410.10781", "When attention sink emerges in language models")
FIRST = 0  # the token that begins sequences
THRESHOLD = 0.3  # eps of the sink metric
HELD_OUT = 0.1  # of the text, its end


class Language(NamedTuple):
    """Sequences without their first token; token 0 is not in them.

    Attributes:
        vocabulary: number of tokens, `FIRST` among them.
        draw: `(key) -> [t + 1]` to train on.
        test: the same, to test on.
    """

    vocabulary: int
    draw: Callable[[jax.Array], jax.Array]
    test: Callable[[jax.Array], jax.Array]


def language(config, name: str) -> Language:
    """`"backcopy"` or `"text"`."""
    length = config.length + 1
    if name == "backcopy":
        table = bigrams(jax.random.key(config.seed), config.vocabulary, config.triggers)
        sample = backcopy(table, config.triggers, length + 1)
        draw = lambda key: sample(key).tokens[1:]
        return Language(config.vocabulary, draw, draw)
    tokens, vocabulary = byte_tokens(english_text(config.text))
    split = int(len(tokens) * (1 - HELD_OUT))
    parts = (windows(tokens[:split] + 1, length), windows(tokens[split:] + 1, length))
    return Language(vocabulary + 1, *parts)


class Trained(NamedTuple):
    """What was looked at in training, every entry `[times, seeds, arms, ...]`.

    Attributes:
        arms: what the third axis is.
        steps: the first axis.
        noted: `test` (loss), `sink` and `alpha` of the first four positions, `bias_sink`,
            `massive`, `value_ratio`, `key_ratio` and `cosine`; see `looked_at`.
    """

    arms: tuple[Arm, ...]
    steps: np.ndarray
    noted: dict[str, np.ndarray]

    def end(self, field: str, arm: Arm) -> np.ndarray:
        """A number at the end, of an arm, `[seeds, ...]`."""
        return self.noted[field][-1][:, self.arms.index(arm)]


def placed(arm: Arm, sequences: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens, what comes next, and whether that is asked, with the first token where it belongs."""
    places = jnp.arange(sequences.shape[1])
    sequences = jnp.where(places == arm.first, FIRST, sequences)
    targets = sequences[:, 1:]
    return sequences[:, :-1], targets, (targets != FIRST) & (places[1:] >= arm.prefix)


def train(run: Run, config, name: str, arms: Sequence[Arm], *, seeds: int) -> Trained:
    """Trains every arm on a language.

    Args:
        run, config: as for a study.
        name: of the language.
        arms: what to train.
        seeds: how many.
    """
    spoken, fields = language(config, name), arrays(arms)
    few = jax.random.key(config.seed + 1)
    keys = jax.random.split(jax.random.key(config.seed + 2), config.test_size)

    def init(key):
        return {"nets": copies(network.init(key, config, spoken.vocabulary), len(arms))}

    def sample(key):
        of_many, of_few = jax.random.split(key)
        which = jax.random.randint(of_few, (), 0, config.few)
        return spoken.draw(of_many), spoken.draw(jax.random.fold_in(few, which))

    def loss(params, batch):
        def of_arm(net, arm):
            tokens, targets, asked = placed(arm, jnp.where(arm.few, batch[1], batch[0]))
            found, _ = network.logits(net, config, arm, tokens)
            return cross_entropy(found, targets, asked)

        return jax.vmap(of_arm)(params["nets"], fields).sum()

    def record(params):
        test = lax.optimization_barrier(jax.vmap(spoken.test)(keys))

        def of_arm(net, arm):
            tokens, targets, asked = placed(arm, test)
            found, seen = network.logits(net, config, arm, tokens)
            return looked_at(seen) | {"test": cross_entropy(found, targets, asked)}

        return jax.vmap(of_arm)(params["nets"], fields)

    rates = [config.learning_rate * arm.rate for arm in arms]
    found = fit(
        init,
        loss,
        sample,
        adamw(rates, [arm.decay for arm in arms], b2=0.95),
        run=run,
        name=name,
        seeds=seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=config.eval_every,
        record=record,
    )
    return Trained(tuple(arms), found.steps, found.history)


def looked_at(seen: Sequence[network.Seen]) -> dict[str, Any]:
    """What is said of sinks, of all layers together but for the largest activations.

    sink         share of samples, layers and heads with alpha > 0.3, of positions 1 to 4
    alpha        mean of alpha
    bias_sink    the same share for the key bias
    massive      largest over median magnitude in the stream, the largest of any layer
    value_ratio  norm of the first position's value over the mean of others; key_ratio of keys
    cosine       of queries with the first key, less their mean cosine with the others
    """
    alphas = jnp.stack([importance(layer.weights) for layer in seen])
    bias = jnp.stack([layer.bias.mean(-1) for layer in seen])
    streams = jnp.stack([jnp.abs(layer.stream) for layer in seen])
    massive = streams.max((1, 2, 3)) / jnp.median(streams, axis=(1, 2, 3))

    def ratio(parts):
        norms = jnp.linalg.norm(jnp.stack(parts), axis=-1)  # [l, b, t, h]
        return (norms[:, :, 0] / norms[:, :, 1:].mean(2)).mean()

    unit = lambda x: x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-9)
    query, key = (unit(jnp.stack([getattr(s, p) for s in seen])) for p in ("query", "key"))
    cosine = jnp.einsum("lbihd,lbjhd->lbhij", query, key).mean((0, 1, 2))
    later = jnp.tri(len(cosine), k=-1)
    others = (cosine[1:, 1:] * later[1:, 1:]).sum() / later[1:, 1:].sum()
    return {
        "sink": (alphas > THRESHOLD).mean((0, 1, 2))[:4],
        "alpha": alphas.mean((0, 1, 2))[:4],
        "bias_sink": (bias > THRESHOLD).mean(),
        "massive": massive.max(),
        "value_ratio": ratio([layer.value for layer in seen]),
        "key_ratio": ratio([layer.key for layer in seen]),
        "cosine": cosine[1:, 0].mean() - others,
    }
