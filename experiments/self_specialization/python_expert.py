"""A trained language model makes an expert of Python's library of itself, from a few questions."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.language_model import (
    batches_of,
    language_model,
    minimizer,
    program,
    with_adapters,
)
from experiments.plots import COLORS, label, panels
from experiments.self_specialization.expert import DOCUMENTS, SHOTS, TARGETS
from experiments.self_specialization.study import PAPER, ROWS
from experiments.word_models import Lesson, lesson_loss, packed
from jattn.nn import Llama, generate
from jattn.nn.lora import lora_init
from jattn.systems.self_specialization import keep_different
from jattn.tasks import bm25
from jattn.tasks import python_facts as facts
from jattn.training import Claim, Run

SEEN, UNSEEN = facts.FORMS[:3], facts.FORMS[3]
ROWS_OF_PASS = 16
QUESTION_TOKENS, ANSWER_TOKENS = 32, 12
SCALE = 2.0  # of adapters: alpha over rank
COMMON = 0.25  # words of so many seeds are the form of a question, not what it asks about


class Item(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


@program
def _greedy(model, tokens, sizes):
    mask = jnp.arange(tokens.shape[1]) < sizes[:, None]
    return generate(model, tokens, ANSWER_TOKENS, mask=mask)


@program
def _sampled(model, tokens, sizes, key):
    mask = jnp.arange(tokens.shape[1]) < sizes[:, None]
    return generate(model, tokens, QUESTION_TOKENS, mask=mask, key=key, top_p=0.98)


def continued(
    model: Llama, tokenizer: Any, prompts: Sequence[str], key: jax.Array | None = None
) -> list[str]:
    """The rest of the line that each prompt ends in; the likeliest, or drawn with a key."""
    rows, lines = [tokenizer.encode(prompt) for prompt in prompts], []
    length = -(-max(map(len, rows)) // 64) * 64
    for start in range(0, len(rows), ROWS_OF_PASS):
        piece = rows[start : start + ROWS_OF_PASS]
        tokens, sizes = packed(piece + [[0]] * (ROWS_OF_PASS - len(piece)), length)
        if key is None:
            found = _greedy(model, jnp.asarray(tokens), jnp.asarray(sizes))
        else:
            own = jax.random.fold_in(key, start)
            found = _sampled(model, jnp.asarray(tokens), jnp.asarray(sizes), own)
        texts = [tokenizer.decode(row) for row in np.asarray(found)[: len(piece)]]
        lines += [text.split("\n")[0].strip() for text in texts]
    return lines


def prompt(question: str, shots: Sequence[Item] = (), documents: Sequence[str] = ()) -> str:
    """Examples, documents, then the question: text that a model without instructions goes on."""
    told = [f"Question: {shot.question}\nAnswer: {shot.answer}\n" for shot in shots]
    told += [f"Documentation: {document}\n" for document in documents]
    return "".join(told) + f"Question: {question}\nAnswer:"


def items(
    things: Sequence[facts.Thing], forms: Sequence[str], count: int, rng: np.random.Generator
) -> list[Item]:
    """Different questions with right answers, of each form in turn."""
    words = sorted({word for thing in things for word in thing.parameters})
    found: dict[str, None] = {}
    while len(found) < count:
        thing = things[int(rng.integers(len(things)))]
        found[facts.ask(thing, forms[len(found) % len(forms)], rng, words)] = None
    return [Item(text, facts.answer(things, text) or "") for text in found]


def written(
    model: Llama, tokenizer: Any, seeds: Sequence[Item], wanted: int, refused: Sequence[str],
    seed: int,
) -> list[str]:  # fmt: skip
    """Questions that the model goes on with behind three seeds; kept while they differ."""
    rng = np.random.default_rng(seed)
    prompts = [
        "".join(
            f"Question: {seeds[i].question}\nAnswer: {seeds[i].answer}\n"
            for i in rng.choice(len(seeds), 3, replace=False).tolist()
        )
        + "Question:"
        for _ in range(2 * wanted)
    ]
    lines = continued(model, tokenizer, prompts, jax.random.key(seed))
    # A text that is not whole has no end to go by.
    lines = [line for line in lines if line.endswith("?") and line not in refused]
    rows = [tokenizer.encode(text) for text in [item.question for item in seeds] + lines]
    counts = np.bincount(np.concatenate([np.unique(row) for row in rows[: len(seeds)]]))
    form = set(np.flatnonzero(counts >= COMMON * len(seeds)))
    bodies, sizes = packed([[token for token in row if token not in form] for row in rows])
    place = np.arange(bodies.shape[1])
    kept = keep_different(np.where(place < sizes[:, None], bodies, -1), len(seeds)) - len(seeds)
    return [lines[index] for index in kept[:wanted]]


def documents_of(
    tokenizer: Any, things: Sequence[facts.Thing], questions: Sequence[str], vocabulary: int
) -> list[list[str]]:
    """For each question the documents that BM25 finds."""
    texts = [facts.document(thing) for thing in things]

    def tokens(rows):
        found, sizes = packed([tokenizer.encode(row) for row in rows])
        return jnp.asarray(np.where(np.arange(found.shape[1]) < sizes[:, None], found, -1))

    best = bm25.retrieve(bm25.build_index(tokens(texts), vocabulary), tokens(questions), DOCUMENTS)
    return [[texts[index] for index in row] for row in np.asarray(best)]


def tuned(settings, model: Llama, tokenizer: Any, pairs: Sequence[Item], seed: int) -> Llama:
    """The model with adapters that have learned to answer with nothing else in view."""
    starts = [len(tokenizer.encode(prompt(pair.question))) for pair in pairs]
    rows = [tokenizer.encode(f"{prompt(pair.question)} {pair.answer}\n") for pair in pairs]
    tokens, sizes = packed([row[: settings.tokens] for row in rows], settings.tokens)
    place = np.arange(settings.tokens)
    counts = (place >= np.array(starts)[:, None]) & (place < sizes[:, None])
    batches = batches_of(
        np.random.default_rng(seed),
        Lesson(jnp.asarray(tokens), jnp.asarray(counts)),
        settings.steps,
        settings.batch_size,
    )

    def loss(frozen, adapters, _, lesson):
        return lesson_loss(with_adapters(frozen, adapters, SCALE), lesson)

    adapters = lora_init(
        jax.random.key(seed), model.arrays()["layers"], rank=settings.rank, targets=TARGETS
    )
    adamw = optax.adamw(settings.learning_rate, weight_decay=0.0)
    learn = minimizer(loss, optax.chain(optax.clip_by_global_norm(1.0), adamw))
    return with_adapters(model, learn(model, adapters, 0.0, batches)[0], SCALE)


def right(said: str, answer: str) -> bool:
    """Whether the answer is what was said, and nothing else but quotes and a full stop."""
    return said.strip("`'\". ").casefold() == answer.casefold()


def measured(config) -> dict[str, np.ndarray]:
    """Shares of right answers before and after, of each form."""
    settings = config.python
    model, tokenizer = language_model(settings.model)
    rng = np.random.default_rng(config.seed)
    things = facts.python_things()
    order = [things[index] for index in rng.permutation(len(things))]
    # Of a quarter of the library the seeds ask, of all else the test.
    few, rest = order[: len(order) // 4], order[len(order) // 4 :]
    seeds = items(few, SEEN, settings.examples, rng)
    tests = [items(rest, [form], settings.questions, rng) for form in facts.FORMS]
    asked = [item for test in tests for item in test]
    shots = seeds[:SHOTS]

    def scored(of: Llama, shots: Sequence[Item] = ()) -> np.ndarray:
        said = continued(of, tokenizer, [prompt(item.question, shots) for item in asked])
        each = [right(text, item.answer) for text, item in zip(said, asked, strict=True)]
        return np.array(each).reshape(len(tests), -1)

    refused = [item.question for item in asked]
    questions = written(model, tokenizer, seeds, settings.instructions, refused, config.seed)
    told = documents_of(tokenizer, things, questions, model.config.vocab_size)
    found = {"zero": scored(model), "few": scored(model, shots)}
    tune = functools.partial(tuned, settings, model, tokenizer, seed=config.seed)
    found["seeds"] = scored(tune(seeds))
    truth = [facts.answer(things, text) for text in questions]
    labels = {}
    for name, documents in (("self", [()] * len(questions)), ("documents", told)):
        prompts = [prompt(q, shots, d) for q, d in zip(questions, documents, strict=True)]
        said = continued(model, tokenizer, prompts)
        pairs = [Item(q, text) for q, text in zip(questions, said, strict=True) if text]
        found[name] = scored(tune(pairs))
        both = [right(text, of) for text, of in zip(said, truth, strict=True) if of is not None]
        labels[f"labels_{name}"] = np.array(both, bool)
    return {**found, **labels, "written": np.array(len(questions))}


def python(run: Run, config) -> list[Claim]:
    """Makes an expert of a trained model, and asks what it knows without anything in view."""
    found = run.cached("python", lambda: measured(config))
    _draw(run, found)
    seen = {name: found[name][: len(SEEN)].ravel() for name in ROWS}
    mean = {name: float(values.mean()) for name, values in seen.items()}
    unseen = {name: float(found[name][len(SEEN) :].mean()) for name in ROWS}
    note = ", ".join(f"{text} {mean[name]:.3f}" for name, text in ROWS.items())
    other = ", ".join(f"{text} {unseen[name]:.3f}" for name, text in ROWS.items())
    labels = {name: found[f"labels_{name}"] for name in ("self", "documents")}
    accuracy = {name: float(of.mean()) if len(of) else np.nan for name, of in labels.items()}

    def gain(id_: str, text: str, more: str, less: str, note: str = "") -> Claim:
        each = seen[more].astype(float) - seen[less]
        error = 2 * each.std() / len(each) ** 0.5
        spread = f"two standard errors are {error:.3f}"
        return PAPER.claim(id_, text, 0.0, float(each.mean()), ">", because="0 is no gain",
                           note=f"{note}; {spread}" if note else spread)  # fmt: skip

    return [
        gain("python-seeds", "Python's library, a trained model, questions of the forms of its "
             "seeds: tuned on the seeds it answers more than as it is: gain.", "seeds", "zero",
             note),
        gain("python-self", "Tuned on pairs of its own it answers more than tuned on the seeds: "
             "gain.", "self", "seeds", f"{int(found['written'])} questions, of those of a known "
             f"form {accuracy['self']:.3f} of {len(labels['self'])} labels are right"),
        gain("python-documents", "With documentation in view while it labels, more: gain.",
             "documents", "self", f"labels right {accuracy['documents']:.3f}"),
        PAPER.claim("python-unseen", "Questions of a form that no seed has: gain of what is tuned "
                    "on its own pairs.", 0.0, unseen["self"] - unseen["zero"], ">=",
                    because="0 is no harm", note=other),
    ]  # fmt: skip


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 1, width=5)
    axis, place = axes[0, 0], np.arange(len(facts.FORMS))
    for number, (name, text) in enumerate(ROWS.items()):
        axis.bar(place + 0.16 * (number - 2), found[name].mean(1), 0.15, color=COLORS[number],
                 label=text)  # fmt: skip
    axis.set_xticks(place, [*SEEN, f"{UNSEEN} (unseen)"], fontsize=8)
    label(axis, "", "right answers", "questions about Python's library")
    run.save_figure(
        figure, "python", "Right answers of a trained language model to questions of four forms, "
        "of which its seeds have three."
    )  # fmt: skip
