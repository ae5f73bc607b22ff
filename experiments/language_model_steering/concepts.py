"""Concepts injected into the stream: whether they can be read off, probed, and are reported."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.language_model import (
    LanguageModel,
    Texts,
    first_tokens,
    language_model,
    program,
    texts_of,
    whole,
)
from experiments.language_model_steering.words import BASELINE, CONCEPTS, CONTROLS, QUESTIONS
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.introspection import concept_vectors, inject, rank_of, rates
from jattn.lens.patching import over_edits
from jattn.lens.readouts import logit_lens
from jattn.nn import Llama
from jattn.pretrained.smollm2 import chat
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2603.21396", "Mechanisms of introspective awareness")
NAMED = 100  # a rank below it counts as named
SIDE_BY_SIDE = 7  # concepts at a time


def concepts(run: Run, config) -> list[Claim]:
    """Injects concepts at one layer while the model is asked whether it notices something."""
    language = language_model(config.model)
    found = run.cached("concepts", lambda: measured(run, language, config))
    strengths = list(config.concepts.strengths)
    _draw(run, strengths, found)
    named, auc = (found["ranks"] < NAMED).mean((1, 2)), found["auc"]
    best = int(named.argmax())
    says = found["true"] - found["false"]
    most = int(says.argmax())
    beside = found["control"][1:] - found["control"][0]
    by = lambda values: ", ".join(f"{c:g}: {x:.2f}" for c, x in zip(strengths, values, strict=True))
    return [
        PAPER.claim(
            "concept-named",
            f"A read-out behind the layer names the concept: share of ranks below {NAMED} among "
            f"{found['vocabulary']} tokens, at strength {strengths[best]:g}.",
            0.5,
            float(named[best]),
            ">",
            because="more often than not; the paper's models are large enough to say it",
            note="by strength " + by(named),
        ),
        PAPER.claim(
            "concept-probed",
            f"A linear probe of the last layer tells injected from clean at strength "
            f"{strengths[-1]:g}: AUC on concepts and questions that it was not trained on.",
            0.9,
            float(auc[-1]),
            ">",
            because="1 is perfect, 0.5 chance",
            note="by strength " + by(auc),
        ),
        PAPER.claim(
            "concept-monotone",
            "The probe gets no worse with strength: smallest step of the AUC.",
            0.0,
            float(np.diff(auc).min()),
            ">=",
            0.02,
            because="less counts as no step",
        ),
        PAPER.claim(
            "concept-reported",
            "Asked, it says yes more often with an injection than without: TPR less FPR, best "
            "strength.",
            0.108,
            float(says[most]),
            ">=",
            where="10.8 points there, of a model two hundred times as large",
            note=f"TPR by strength {by(found['true'])}; FPR {found['false']:.2f}",
        ),
        PAPER.claim(
            "concept-specific",
            "That is no mere leaning to yes: on questions about other things, to be answered with "
            "no, it rises by less than half as much.",
            float(says[most] / 2),
            float(beside[most]),
            "<",
            because="it is half of the rise on questions about its own state in this run",
            note=f"yes by strength {by(found['control'][1:])}; {found['control'][0]:.2f} without",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Ranks `[strengths, concepts, questions]`, AUCs, and rates of saying yes."""
    model, tokenizer = language
    settings, layers = config.concepts, model.config.layers
    layer = int(settings.depth * layers)
    words = whole(tokenizer, CONCEPTS)[: settings.count]
    about = lambda some: [_asked(f"Tell me about {word}") for word in some]
    with run.progress("concepts", 3 + len(settings.strengths)) as advance:
        streams = _stream(model, texts_of(tokenizer, about(words)), layer)
        advance(1)
        usual = _stream(model, texts_of(tokenizer, about(BASELINE[: settings.baseline])), layer)
        vectors = concept_vectors(streams, usual)
        advance(1)
        texts = texts_of(tokenizer, [_asked(question) for question in (*QUESTIONS, *CONTROLS)])
        before = _whole_stream(model, texts, layer)
        advance(1)
        # Nothing is injected first: what the others are compared with.
        own = first_tokens(tokenizer, [words[0], *words])
        vectors = jnp.concatenate([jnp.zeros_like(vectors[:1]), vectors])
        injected, asked = _at_layer(layer, _answers(tokenizer)), len(QUESTIONS)
        last, says, ranks = [], [], []  # by strength, of every concept and question
        for strength in settings.strengths:
            found = map(np.asarray, injected(model, before, texts.last, vectors, strength, own))
            for kept, values in zip((last, says, ranks), found, strict=True):
                kept.append(values)
            advance(1)
    injected_first = lambda said, clean: rates(
        jnp.concatenate([said.ravel(), clean.ravel()]),
        jnp.arange(said.size + clean.size) < said.size,
    )
    told = [injected_first(yes[1:, :asked], yes[0, :asked]) for yes in says]
    return dict(
        ranks=np.stack(ranks)[:, 1:, :asked],
        auc=np.array([_probe(stream[1:, :asked], stream[0, :asked]) for stream in last]),
        true=np.array([float(rate) for rate, _ in told]),
        false=np.asarray(float(told[0][1])),
        control=np.array([says[0][0, asked:].mean(), *(yes[1:, asked:].mean() for yes in says)]),
        vocabulary=np.asarray(model.config.vocab_size),
    )


def _asked(text: str) -> str:
    return chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}])


def _answers(tokenizer) -> list[int]:
    return [tokenizer.encode(word)[0] for word in ("Yes", "No")]


@program
def _stream(model: Llama, texts: Texts, layer: Any):
    found = lens.run(model, texts.tokens, record=("resid_post",))[1]["resid_post"][layer]
    return found[jnp.arange(len(texts.last)), texts.last]


@program
def _whole_stream(model: Llama, texts: Texts, layer: Any):
    return lens.run(model, texts.tokens, record=("resid_post",))[1]["resid_post"][layer]


def _injected(model: Llama, before, last, vectors, strength, own, *, layer: int, answers):
    """Of every concept and question: the last stream, whether it says yes, the concept's rank.

    Nothing in front of the injection depends on it, so only the layers behind run for each.
    """
    place = jnp.arange(len(last)), last

    def one(given):
        vector, token = given
        edit = inject(strength * vector, layer, model.config.layers, before.shape[1], strength=1.0)
        stream = edit(before, layer, {})
        logits, found = lens.resume(model, stream, layer, record=("resid_post",), at=last)
        says = logits[:, answers[0]] > logits[:, answers[1]]
        read = logit_lens(model, stream[place])
        return found["resid_post"][-1][place], says, rank_of(read, jnp.full(len(read), token))

    return over_edits(one, (vectors, own), batch_size=SIDE_BY_SIDE)


def _at_layer(layer: int, answers: list[int]):
    """The program of one layer, which is no array of it: `inject` refuses layers there are not."""
    return program(lambda *args: _injected(*args, layer=layer, answers=answers))


def _probe(injected: np.ndarray, clean: np.ndarray) -> float:
    """AUC of the difference of means, fitted on half of the concepts and questions."""
    concepts, questions = len(injected) // 2, len(clean) // 2
    size = np.sqrt((clean**2).mean(-1, keepdims=True).mean())
    axis = injected[:concepts, :questions].mean((0, 1)) - clean[:questions].mean(0)
    score = lambda x: ((x / size) @ axis).ravel()
    positive, negative = score(injected[concepts:, questions:]), score(clean[questions:])
    wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(wins)


def _draw(run: Run, strengths: list[float], found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 1, width=4.4)
    axis = axes[0, 0]
    named = (found["ranks"] < NAMED).mean((1, 2))
    lines = {"named by read-out": named, "probe, AUC": found["auc"], "says yes": found["true"]}
    for number, (name, values) in enumerate(lines.items()):
        axis.plot(strengths, values, color=COLORS[number], marker="o", label=name)
    axis.axhline(found["false"], color=COLORS[2], linestyle=":", linewidth=1)
    axis.set_xscale("log", base=2)
    axis.set_xticks(strengths, [f"{c:g}" for c in strengths])
    label(axis, "strength of the injection", "share")
    run.save_figure(
        figure,
        "concepts",
        "Injected concepts: how often a read-out behind the layer names them, how well a probe of "
        "the last layer sees them, how often the model says so; dotted, how often without any.",
    )
