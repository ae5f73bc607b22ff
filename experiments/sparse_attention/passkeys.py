"""Pairs that are asked for later: blocks that are fetched by their landmarks, against a window."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.functional import optimizer
from experiments.plots import COLORS, label, panels
from experiments.sparse_attention.networks import decoder, decoder_init, of_seed, sizes_of
from jattn import attend, masks
from jattn.mechanisms.sparse.landmark_attention import (
    insert_landmarks,
    landmark_attention,
    select_blocks,
)
from jattn.tasks.associative_recall import Recall, associative_recall
from jattn.training import Claim, Paper, Run, fit

PAPER = Paper("arXiv 2305.16300", "Landmark attention")


def landmarks(run: Run, config) -> list[Claim]:
    """Recall with a few blocks fetched, with all of them, and from a window of as many tokens."""
    settings = config.landmarks
    counts = tuple(settings.fetched)
    found = _landmarks(run, config, counts)
    window = _window(run, config, (counts[0] + 1) * settings.block)
    every, few = found[:, -1], found[:, 0]
    _draw(run, counts, found, window)
    far = few - window
    return [
        PAPER.claim("landmarks-learn", "with all blocks in reach, pairs are recalled: accuracy",
                    0.5, float(np.median(every)), ">",
                    because=f"chance is {2 / settings.vocabulary:.3f}", seeds=every),
        PAPER.claim("landmarks-fetch", f"{counts[0]} blocks, chosen by their landmarks, recall as "
                    "much: share of the accuracy with all", 0.9, float(np.median(few / every)),
                    ">=", because="nine tenths are nearly all", seeds=few / every),
        PAPER.claim("landmarks-window", "a decoder with a window of as many tokens recalls less "
                    "than half of that: share", 0.5, float(np.median(window / few)), "<",
                    because="half is clearly less", note=f"accuracy {window.mean():.3f}, with "
                    f"landmarks {few.mean():.3f}", seeds=window / np.maximum(few, 1e-6)),
        PAPER.claim("landmarks-gain", "difference of their accuracies", 0.0,
                    float(np.median(far)), ">", because="0 is no difference", seeds=far),
    ]  # fmt: skip


def _sampler(settings):
    """Recall whose questions follow their pairs from far, most of them out of a window's reach."""
    return associative_recall(settings.vocabulary - 1, settings.length, settings.pairs, power=1.0)


def _with_landmarks(settings, batch: Recall) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens with landmarks between them, which are those, and where the questions stand now."""
    every, mark = settings.block - 1, settings.vocabulary - 1
    tokens = insert_landmarks(batch.tokens, every, mark)
    return tokens, tokens == mark, batch.queries + batch.queries // every


def _landmarks(run: Run, config, counts: tuple[int, ...]) -> np.ndarray:
    """Accuracy `[seeds, counts and all]` of a decoder that is trained with landmarks."""
    settings = config.landmarks
    sizes, sample = sizes_of(settings), _sampler(settings)

    def asked(params, batch, count=None):
        tokens, marks, queries = _with_landmarks(settings, batch)

        def attention(layer, query, key, value):
            chosen = None if count is None else select_blocks(query, key, marks, count)
            return landmark_attention(query, key, value, marks, retrieved=chosen)

        logits = decoder(params, tokens, sizes, attention)
        return jnp.take_along_axis(logits, queries[..., None], axis=1)

    params = _fit(run, config, "landmarks", asked, sample)

    def accuracies():
        batch = _test(config, sample)
        measure = lambda count: jax.jit(
            lambda params: (asked(params, batch, count).argmax(-1) == batch.answers).mean()
        )
        tests = [measure(count) for count in (*counts, None)]
        rows = [[test(of_seed(params, seed)) for test in tests] for seed in range(config.seeds)]
        return {"accuracy": np.array(rows)}

    return run.cached("landmarks", accuracies)["accuracy"]


def _window(run: Run, config, width: int) -> np.ndarray:
    """Accuracy `[seeds]` of a decoder whose last layer sees a window, trained with it."""
    settings = config.landmarks
    sizes, sample = sizes_of(settings), _sampler(settings)

    def asked(params, batch):
        mask = masks.sliding_window(width - 1, 0)
        attention = lambda layer, query, key, value: attend(query, key, value, mask=mask)
        logits = decoder(params, batch.tokens, sizes, attention)
        return jnp.take_along_axis(logits, batch.queries[..., None], axis=1)

    params = _fit(run, config, "window", asked, sample)

    def accuracy():
        batch = _test(config, sample)
        test = jax.jit(lambda params: (asked(params, batch).argmax(-1) == batch.answers).mean())
        return {"accuracy": np.array([test(of_seed(params, i)) for i in range(config.seeds)])}

    return run.cached("window", accuracy)["accuracy"]


def _fit(run: Run, config, name: str, asked, sample):
    settings = config.landmarks

    def loss(params, batch):
        each = optax.softmax_cross_entropy_with_integer_labels(asked(params, batch), batch.answers)
        return each.mean()

    return fit(
        lambda key: decoder_init(key, sizes_of(settings)), loss, sample,
        optimizer(settings.learning_rate, settings.steps), run=run, name=name,
        seeds=config.seeds, steps=settings.steps, batch_size=settings.batch_size,
        seed=config.seed, log_every=settings.steps // 10,
    ).params  # fmt: skip


def _test(config, sample) -> Recall:
    return jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), 128))


def _draw(run: Run, counts, found: np.ndarray, window: np.ndarray) -> None:
    figure, axes = panels(1, 1, width=4.0)
    names = ["window", *map(str, counts), "all"]
    for row in np.concatenate([window[:, None], found], axis=1):
        axes[0, 0].plot(range(len(names)), row, "o", color=COLORS[0], alpha=0.7)
    axes[0, 0].set_xticks(range(len(names)), names)
    axes[0, 0].set_ylim(0, 1)
    label(axes[0, 0], "blocks that are fetched", "accuracy of recall")
    run.save_figure(
        figure, "landmarks", "Recall with blocks fetched by their landmarks, and from a window of "
        "as many tokens as the fewest blocks; dots are seeds."
    )  # fmt: skip
