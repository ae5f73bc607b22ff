"""Feelings: single channels scaled (AUSteer), and a steering vector of one layer."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.language_model import (
    LanguageModel,
    first_tokens,
    language_model,
    next_logits,
    reads_at_last,
    texts_of,
)
from experiments.language_model_steering.words import BAD, FEELINGS, GOOD, OPENINGS
from experiments.plots import COLORS, label, panels
from jattn.lens.edits import ResidAdd
from jattn.lens.methods.atomic_steering import atomic_steering, momentum
from jattn.lens.steering import steering_vectors
from jattn.training import Claim, Paper, Run

PAPER = Paper("ICLR 2026", "AUSteer: fine-grained steering of atomic units")
ADDITION = Paper("arXiv 2308.10248", "Activation addition")
STRENGTHS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
MOST = 0.8


def channels(run: Run, config) -> list[Claim]:
    """Steers what follows openings such as "The weather today is" to good or bad words."""
    language = language_model(config.model)
    found = run.cached("channels", lambda: measured(run, language, config))
    _draw(run, config, found)
    share = (found["chosen"] > 0).mean(-1)  # [alphas]
    best = int(share.argmax())
    random = (found["random"][:, best] > 0).mean(-1)
    count, alpha = config.channels.count, config.channels.alphas[best]
    moved = found["vector"].mean(-1)
    inner = [i for i, c in enumerate(STRENGTHS) if abs(c) <= 2]
    steps = np.diff(moved[inner])
    shown = ", ".join(f"{c:g}: {x:.2f}" for c, x in zip(STRENGTHS, moved, strict=True))
    return [
        PAPER.claim(
            "austeer",
            f"{count} channels at alpha {alpha:g} move most openings to good words: share.",
            MOST,
            float(share[best]),
            ">=",
            because="four of five are most of them",
            note="by alpha " + ", ".join(f"{x:.2f}" for x in share) + "; mean change of logits "
            f"{found['chosen'][best].mean():.2f}",
        ),
        PAPER.claim(
            "austeer-random",
            f"{count} random channels, by their own signs, do not: share, mean of draws.",
            MOST,
            float(random.mean()),
            "<",
            because="four of five are most of them",
            note=f"mean change of logits {found['random'][:, best].mean():.2f}",
        ),
        PAPER.claim(
            "austeer-size",
            "The chosen channels move logits further than random ones: ratio of mean changes.",
            2.0,
            float(found["chosen"][best].mean() / max(found["random"][:, best].mean(), 1e-6)),
            ">",
            because="twice as far is clearly further",
        ),
        ADDITION.claim(
            "vector-monotone",
            "A steering vector moves logits the further the longer it is, up to twice its own "
            "length: smallest step between strengths.",
            0.0,
            float(steps.min()),
            ">",
            because="it is monotone then",
            note=f"good less bad by strength {shown}",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Changes of the logits of good less bad words, by edit and opening."""
    model, tokenizer = language
    settings, rng = config.channels, np.random.default_rng(config.seed)
    good, bad = first_tokens(tokenizer, GOOD), first_tokens(tokenizer, BAD)
    openings = texts_of(tokenizer, OPENINGS)

    def leaning(*edits):
        logits = next_logits(model, openings, edits)
        return np.asarray(logits[:, good].mean(-1) - logits[:, bad].mean(-1))

    sides = [[pair[side] for pair in FEELINGS] for side in (0, 1)]
    positive, negative = (reads_at_last(model, texts_of(tokenizer, texts)) for texts in sides)
    beta = momentum(positive, negative)
    plain = leaning()
    chosen, random = [], []
    total = len(settings.alphas) * (1 + settings.draws) + len(STRENGTHS)
    with run.progress("channels", total) as advance:
        for alpha in settings.alphas:
            edit = atomic_steering(beta, count=settings.count, alpha=alpha)
            chosen.append(leaning(edit) - plain)
            advance(1)
        for _ in range(settings.draws):
            some = np.zeros(beta.size)
            some[rng.permutation(beta.size)[: settings.count]] = 1
            drawn = beta * jnp.asarray(some.reshape(beta.shape), beta.dtype)
            row = []
            for alpha in settings.alphas:
                edit = atomic_steering(drawn, count=settings.count, alpha=alpha)
                row.append(leaning(edit) - plain)
                advance(1)
            random.append(row)
        vector = steering_vectors(model, *[[tokenizer.encode(t) for t in side] for side in sides])
        there = (jnp.arange(len(vector)) == settings.layer)[:, None] * vector
        moved = []
        for strength in STRENGTHS:
            moved.append(leaning(ResidAdd(there, strength)))
            advance(1)
    return dict(chosen=np.stack(chosen), random=np.array(random), vector=np.stack(moved))


def _draw(run: Run, config, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.6)
    alphas, count = config.channels.alphas, config.channels.count
    for number, (name, values) in enumerate(
        (("chosen", found["chosen"]), ("random", found["random"].mean(0)))
    ):
        axes[0, 0].errorbar(
            alphas, values.mean(-1), values.std(-1), color=COLORS[number], marker="o", label=name
        )
    axes[0, 0].axhline(0, color="#999999", linewidth=1, linestyle=":")
    label(axes[0, 0], "alpha", "change of good less bad, logits", f"{count} channels")
    axes[0, 1].plot(STRENGTHS, found["vector"], color=COLORS[6], alpha=0.3, linewidth=1)
    axes[0, 1].plot(STRENGTHS, found["vector"].mean(-1), color=COLORS[2], marker="o")
    label(axes[0, 1], "strength", "good less bad, logits", f"vector, layer {config.channels.layer}")
    run.save_figure(
        figure,
        "channels",
        "Left: how far scaled channels move what follows openings from bad to good words, means "
        "and standard deviations over openings. Right: a steering vector; grey, single openings.",
    )
