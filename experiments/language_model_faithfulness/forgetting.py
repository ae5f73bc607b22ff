"""How fast a context is forgotten (TVC): facts are hidden from some row on, and the loss rises.

The answer is worked out in steps that say the name again, so that later the facts are not needed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import (
    LanguageModel,
    Texts,
    first_tokens,
    language_model,
    next_logits,
    texts_of,
    whole,
)
from experiments.language_model_faithfulness.questions import FACT, FACTS, KINDS, NAMES
from experiments.plots import COLORS, label, panels
from jattn.lens.methods.forgetting import hide_after
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2503.13360", "Take-along visual conditioning")
CUTS = 9
STEPS = (
    " Let us think about the {kind}. The text says that the {kind} is called {name}. The others "
    "do not matter here. So the name of the {kind} is"
)


def forgetting(run: Run, config) -> list[Claim]:
    """Hides the facts from more and more of the reasoning behind them."""
    language = language_model(config.model)
    found = run.cached("forgetting", lambda: measured(run, language, config))
    curve, plain = found["loss"].mean(1), found["plain"].mean()
    _draw(run, curve, plain)
    restated = int(found["restated"])  # the first cut behind the name in the reasoning
    rise = curve[0] - plain
    shown = ", ".join(f"{x:.2f}" for x in curve)
    return [
        PAPER.claim(
            "forgetting-early",
            "Hiding the facts from the start of the reasoning costs more than once the answer is "
            "said again: loss of the name.",
            float(curve[restated:].mean()),
            float(curve[0]),
            ">",
            because="it is the loss behind it in this run",
            note=f"by eighths {shown}; nothing hidden {plain:.2f}",
        ),
        PAPER.claim(
            "forgetting-late",
            "Behind it, hiding them costs little: share of the early rise of the loss.",
            0.25,
            float((curve[restated:].mean() - plain) / rise) if rise > 0 else float("nan"),
            "<=",
            because="a quarter is little",
            note="" if rise > 0 else "hiding the facts early does not raise the loss at all",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Loss of the name by cut and text `[cuts, n]`, and without any."""
    model, tokenizer = language
    rng = np.random.default_rng(config.seed)
    kinds, names = whole(tokenizer, KINDS), whole(tokenizer, NAMES)
    texts, right = [], []
    for number in range(config.questions):
        some, called = rng.permutation(kinds)[:FACTS], rng.permutation(names)[:FACTS]
        facts = [f"The {a} is called {b}." for a, b in zip(some, called, strict=True)]
        kind, name = some[number % FACTS], called[number % FACTS]
        texts.append(" ".join(facts) + STEPS.format(kind=kind, name=name))
        right.append(name)
    texts, answers = texts_of(tokenizer, texts), first_tokens(tokenizer, right)
    length, start = texts.tokens.shape[1], FACTS * FACT
    place = jnp.arange(length)
    facts = (place > 0) & (place < start)  # the first token of all stays: attention rests on it
    cuts = [start + round(n * (length - start) / (CUTS - 1)) for n in range(CUTS)]
    again = int(jnp.argmax((texts.tokens[0] == answers[0]) & (place >= start)))
    losses = []
    with run.progress("forgetting", CUTS) as advance:
        for cut in cuts:
            losses.append(_losses(model, texts, answers, hide_after(facts, cut)))
            advance(1)
    return dict(
        loss=np.stack(losses),
        plain=_losses(model, texts, answers),
        restated=np.asarray(next(i for i, cut in enumerate(cuts) if cut > again)),
    )


def _losses(model, texts: Texts, answers, *edits) -> np.ndarray:
    logits = next_logits(model, texts, edits)
    own = jnp.take_along_axis(logits, answers[:, None], axis=1)[:, 0]
    return np.asarray(jax.nn.logsumexp(logits, axis=-1) - own)


def _draw(run: Run, curve: np.ndarray, plain: float) -> None:
    figure, axes = panels(1, 1, width=4.4)
    axes[0, 0].plot(np.arange(CUTS) / (CUTS - 1), curve, color=COLORS[0], marker="o")
    axes[0, 0].axhline(plain, color="#999999", linestyle=":", linewidth=1)
    label(axes[0, 0], "share of the reasoning that still sees the facts", "loss of the name, nats")
    run.save_figure(
        figure,
        "forgetting",
        "Loss of the answer with the facts hidden from some token of the reasoning on; dotted, "
        "nothing hidden.",
    )
