"""Neurofeedback: a model reports where sentences lie along an axis of its own states."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import (
    LanguageModel,
    Texts,
    language_model,
    next_logits,
    program,
    texts_of,
)
from experiments.language_model_steering.words import MONEY, SEA
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.neurofeedback import principal_axes, scores_and_labels
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2505.13763", "Metacognitive monitoring and control")
LABELS = ("0", "1")
TOGETHER = 4  # questions at a time
MANNERS = ("classes", "component", "shuffled")


def feedback(run: Run, config) -> list[Claim]:
    """Shows scored sentences, and asks for the score of another one."""
    language = language_model(config.model)
    found = run.cached("feedback", lambda: measured(run, language, config))
    examples = list(config.feedback.examples)
    _draw(run, examples, found)
    right = dict(zip(MANNERS, found["right"], strict=True))
    questions = config.feedback.questions
    error = 0.5 / np.sqrt(questions)  # of a share near one half
    note = "; ".join(
        f"{name} " + ", ".join(f"{n}: {x:.2f}" for n, x in zip(examples, row, strict=True))
        for name, row in right.items()
    )
    return [
        PAPER.claim(
            "report-grows",
            "More examples, no worse reports of the axis between two topics: smallest step of "
            "the accuracy.",
            0.0,
            float(np.diff(right["classes"]).min()),
            ">=",
            float(error),
            because=f"the slack is a standard error of {questions} questions",
            note=note,
        ),
        PAPER.claim(
            "report-works",
            f"With {examples[-1]} examples it reports better than chance: accuracy.",
            0.5 + 2 * error,
            float(right["classes"][-1]),
            ">",
            because=f"two standard errors of {questions} questions above one half",
        ),
        PAPER.claim(
            "report-shuffled",
            "With labels shuffled it does not: distance of the accuracy from one half.",
            0.0,
            float(abs(right["shuffled"][-1] - 0.5)),
            "<=",
            float(2 * error),
            because="two standard errors count as chance",
        ),
        PAPER.claim(
            "report-axis",
            "An axis that means something is reported at least as well as the second principal "
            "component: accuracy.",
            float(right["component"][-1]),
            float(right["classes"][-1]),
            ">=",
            because="it is the component's in this run",
            note=f"shares of variance {found['shares'][0]:.2f} and {found['shares'][1]:.2f}",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Share of right reports `[manner, examples]`."""
    model, tokenizer = language
    settings, rng = config.feedback, np.random.default_rng(config.seed)
    sentences = [*SEA, *MONEY]
    layer = int(settings.depth * model.config.layers)
    states = _mean_stream(model, texts_of(tokenizer, sentences), layer)
    axes, shares = principal_axes(states)
    topic = states[: len(SEA)].mean(0) - states[len(SEA) :].mean(0)
    labels = {
        "classes": np.asarray(scores_and_labels(states, topic)[1]).astype(int),
        "component": np.asarray(scores_and_labels(states, axes[1])[1]).astype(int),
    }
    labels["shuffled"] = rng.permutation(labels["classes"])
    answers = jnp.array([tokenizer.encode(f" {name}")[-1] for name in LABELS])
    asked = rng.permutation(len(sentences))[: settings.questions]
    orders = [rng.permutation([i for i in range(len(sentences)) if i != q]) for q in asked]
    right = np.zeros((len(MANNERS), len(settings.examples)))
    with run.progress("feedback", right.size) as advance:
        for row, manner in enumerate(MANNERS):
            given = labels[manner]
            for column, count in enumerate(settings.examples):
                texts = [
                    "".join(f"{sentences[i]} [Score: {given[i]}]\n" for i in order[:count])
                    + f"{sentences[q]} [Score:"
                    for q, order in zip(asked, orders, strict=True)
                ]
                # Some at a time, for they are long; all padded alike, for one program.
                asked_of = texts_of(tokenizer, texts)
                says = [
                    next_logits(model, jax.tree.map(lambda x, i=i: x[i : i + TOGETHER], asked_of))
                    for i in range(0, len(texts), TOGETHER)
                ]
                says = jnp.concatenate(says)[:, answers].argmax(-1)
                right[row, column] = (np.asarray(says) == given[asked]).mean()
                advance(1)
    return dict(right=right, shares=np.asarray(shares[:2]))


@program
def _mean_stream(model: Llama, texts: Texts, layer: Any):
    """Mean of the stream behind a layer over a text's tokens but the first, the sink."""
    found = lens.run(model, texts.tokens, record=("resid_post",))[1]["resid_post"][layer]
    place = jnp.arange(found.shape[1])
    counts = (place > 0) & (place <= texts.last[:, None])
    return (found * counts[..., None]).sum(1) / counts.sum(1, keepdims=True)


def _draw(run: Run, examples: list[int], found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 1, width=4.4)
    names = ("between two topics", "second component", "labels shuffled")
    for number, (name, row) in enumerate(zip(names, found["right"], strict=True)):
        axes[0, 0].plot(examples, row, color=COLORS[number], marker="o", label=name)
    axes[0, 0].axhline(0.5, color="#999999", linestyle=":", linewidth=1)
    label(axes[0, 0], "scored sentences shown", "right reports")
    run.save_figure(
        figure,
        "feedback",
        "Reports of where a sentence lies along an axis of the model's own states, by how many "
        "scored sentences it is shown; dotted, chance.",
    )
