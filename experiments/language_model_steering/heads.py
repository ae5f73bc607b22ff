"""Vectors at a few heads: LoFiT's, trained; those of inference-time intervention, measured.

The task: "A horse is an animal:" is to go on with yes, "A table is an animal:" with no. The model
leans to one answer; words of the test are none of training.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.language_model import (
    LanguageModel,
    batches_of,
    first_tokens,
    language_model,
    last_of,
    minimizer,
    next_logits,
    random_heads,
    reads_at_last,
    texts_of,
    top_heads,
    whole,
)
from experiments.language_model_steering.words import ANIMALS, THINGS
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.lofit import (
    iti_shift,
    lofit_edit,
    lofit_init,
    lofit_penalty,
    lofit_select,
)
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2406.01563", "LoFiT: localized fine-tuning on LLM representations")
TEMPLATE = "A {} is an animal:"


def heads(run: Run, config) -> list[Claim]:
    """Trains vectors at chosen heads, at random ones, and shifts heads by measured directions."""
    language = language_model(config.model)
    found = run.cached("heads", lambda: measured(run, language, config))
    counts = list(config.heads.counts)
    _draw(run, counts, found)
    middle = len(counts) // 2
    best, chosen = float(found["chosen"].max()), float(found["chosen"][middle])
    random, base = float(found["random"].mean()), float(found["base"])
    count = counts[middle]
    return [
        PAPER.claim(
            "lofit-base",
            f"LoFiT at {count} heads answers better than the model as it is: accuracy.",
            base,
            chosen,
            ">",
            because="it is the model's own in this run",
        ),
        PAPER.claim(
            "lofit-random",
            f"The {count} heads that it selects do no worse than {count} random ones: accuracy.",
            random,
            chosen,
            ">=",
            because="it is the mean of random heads in this run",
            note="random draws " + ", ".join(f"{x:.2f}" for x in found["random"]),
        ),
        PAPER.claim(
            "lofit-iti",
            "Trained vectors do better than those of inference-time intervention: accuracy.",
            float(found["iti"]),
            chosen,
            ">",
            because="it is the best strength's, by words of training, at as many heads in this run",
        ),
        PAPER.claim(
            "lofit-few",
            f"{count} heads get 95 % of what the best number of heads gets: accuracy.",
            0.95 * best,
            chosen,
            ">=",
            because="the paper edits 3 % of the heads",
            note=", ".join(
                f"{n} heads {x:.2f}" for n, x in zip(counts, found["chosen"], strict=True)
            ),
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Accuracies on held-out words: as it is, at selected and random heads, by ITI."""
    model, tokenizer = language
    settings, rng = config.heads, np.random.default_rng(config.seed)
    rates = [optax.adam(rate) for rate in settings.learning_rates]
    choose = minimizer(_selection_loss, rates[0])
    shift = minimizer(_shift_loss, rates[1], together=True)
    answers = first_tokens(tokenizer, ["no", "yes"])
    words = [whole(tokenizer, words) for words in (THINGS, ANIMALS)]
    examples = [(word, kind) for kind, some in enumerate(words) for word in some]
    rng.shuffle(examples)
    train, test = examples[: settings.train], examples[settings.train :]
    data = _encoded(tokenizer, train), answers[np.array([kind for _, kind in train])]
    batches = lambda: batches_of(rng, data, settings.steps, settings.batch_size)
    layers, count, width = model.config.layers, model.config.heads, model.config.width
    initial = lambda key: lofit_init(key, layers, count, width)
    keys = iter(jax.random.split(jax.random.key(config.seed), 1 + len(settings.counts)))

    def accuracy(some, *edits) -> float:
        texts = texts_of(tokenizer, [TEMPLATE.format(word) for word, _ in some])
        logits = next_logits(model, texts, edits)[:, answers]
        return float((logits.argmax(-1) == np.array([kind for _, kind in some])).mean())

    middle = len(settings.counts) // 2
    with run.progress("heads", 4) as advance:
        scale = choose(model, initial(next(keys)), settings.penalty, batches())[0]
        advance(1)
        masks = [lofit_select(scale, number) for number in settings.counts]
        starts = [initial(next(keys)) for _ in settings.counts]
        for _ in range(settings.draws):  # as the selected ones: the same start
            masks.append(random_heads(rng, layers, count, settings.counts[middle]))
            starts.append(starts[middle])
        each = [batches() for _ in masks]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)
        vectors = shift(model, jnp.stack(starts), jnp.stack(masks), stacked)[0]
        advance(1)
        reached = [
            accuracy(test, lofit_edit(shift=vector, heads=mask))
            for vector, mask in zip(vectors, masks, strict=True)
        ]
        chosen, random = reached[: len(settings.counts)], reached[len(settings.counts) :]
        advance(1)
        most = settings.counts[middle]
        iti = _intervention(language, train, most, settings.strengths, accuracy, test)
        advance(1)
    lengths = jnp.linalg.norm(scale, axis=-1)
    found = dict(base=accuracy(test), chosen=chosen, random=random, iti=iti, lengths=lengths)
    return {name: np.asarray(value) for name, value in found.items()}


def _intervention(language, train, count, strengths, accuracy, test) -> float:
    """ITI: from wrong to right answers, at the heads that tell them apart best."""
    model, tokenizer = language

    def ends(right: bool):
        said = [("no", "yes")[kind if right else 1 - kind] for _, kind in train]
        ended = zip(train, said, strict=True)
        texts = [f"{TEMPLATE.format(word)} {answer}" for (word, _), answer in ended]
        return reads_at_last(model, texts_of(tokenizer, texts))

    positive, negative = ends(True), ends(False)
    direction = positive.mean(0) - negative.mean(0)
    middle = (positive.mean(0) + negative.mean(0)) / 2
    side = lambda z: jnp.einsum("nlhd,lhd->nlh", z - middle, direction) > 0
    separation = (side(positive).mean(0) + 1 - side(negative).mean(0)) / 2
    mask = top_heads(separation, count)
    edits = [
        lofit_edit(shift=iti_shift(positive, negative, strength=strength), heads=mask)
        for strength in strengths
    ]
    best = max(edits, key=lambda edit: accuracy(train, edit))
    return accuracy(test, best)


def _encoded(tokenizer, examples) -> np.ndarray:
    return np.asarray(texts_of(tokenizer, [TEMPLATE.format(word) for word, _ in examples]).tokens)


def _answer_loss(model, batch, edit):
    tokens, answers = batch
    logits = lens.run(model, tokens, edits=[edit], at=last_of(tokens))[0]
    return optax.softmax_cross_entropy_with_integer_labels(logits, answers).mean()


def _selection_loss(model, scale, penalty, batch):
    return _answer_loss(model, batch, lofit_edit(scale)) + lofit_penalty(scale, penalty)


def _shift_loss(model, vector, mask, batch):
    return _answer_loss(model, batch, lofit_edit(shift=vector, heads=mask))


def _draw(run: Run, counts: list[int], found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.6)
    curve, chosen = axes[0]
    middle = counts[len(counts) // 2]
    curve.plot(counts, found["chosen"], color=COLORS[0], marker="o", label="LoFiT, selected")
    at = [middle] * len(found["random"])
    curve.scatter(at, found["random"], color=COLORS[1], label="LoFiT, random", zorder=3)
    curve.scatter([middle], [found["iti"]], color=COLORS[2], marker="s", label="ITI", zorder=3)
    curve.axhline(found["base"], color="#999999", linestyle=":", linewidth=1)
    curve.set_xscale("log", base=2)
    curve.set_xticks(counts, [str(n) for n in counts])
    label(curve, "heads edited", "accuracy on new words")
    chosen.imshow(found["lengths"].T, cmap="Blues", aspect="auto")
    label(chosen, "layer", "head", "length of A after step 1")
    run.save_figure(
        figure,
        "heads",
        "Left: accuracy on held-out words with vectors at some heads; dotted, the model as it is. "
        "Right: the scales that the first step trains at all heads; the longest are selected.",
    )
