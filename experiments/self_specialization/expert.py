"""The steps of self-specialisation: lessons, instructions, responses, adapters, scores."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from experiments.word_models import Lesson, descended, lesson_loss, packed
from jattn.nn import Llama, LlamaConfig, generate
from jattn.nn.llama import Weights
from jattn.nn.lora import lora_init, lora_merge
from jattn.systems.self_specialization import keep_different
from jattn.tasks import bm25
from jattn.tasks import domain_facts as facts

SHOTS, DOCUMENTS = 5, 2
LENGTH = DOCUMENTS * facts.FACTS + (SHOTS + 1) * (facts.QUESTION + facts.REPLY)
TARGETS = ("query", "key", "value", "output", "gate", "up", "down")
PIECE = 128  # rows of a pass
Row = list[int]


class Pair(NamedTuple):
    """A question and its answer, without padding."""

    question: Row
    answer: Row


def sample_lesson(world: facts.World, key: jax.Array) -> Lesson:
    """Questions of one domain, answers of one style; before the last one there may be documents.

    What documents say there is drawn anew, so that it must be read. At most `SHOTS` questions come
    before the last one.
    """
    of_world, of_domain, of_style, of_count, of_kind, *of_rows = jax.random.split(key, 6 + SHOTS)
    domain = jax.random.randint(of_domain, (), 0, facts.DOMAINS)
    style = jax.random.randint(of_style, (), 0, facts.STYLES)
    reads = jax.random.bernoulli(of_kind, 0.4)
    other = jax.random.randint(of_world, world.truth.shape, 0, facts.VALUES)
    truth = jnp.where(reads, other, world.truth)
    allowed = world.covered | reads
    count = jax.random.randint(of_count, (), 0, SHOTS + 1)
    pieces, learned = [], []
    for number, own in enumerate(of_rows):
        last = number == SHOTS
        asked = facts.sample_question(
            own, truth if last else world.truth, allowed if last else world.covered, domain
        )
        if last:
            stranger = (asked.entity + 1 + count) % facts.ENTITIES
            for entity in (asked.entity, stranger):
                told = facts.document(truth, domain, entity)
                pieces.append(jnp.where(reads, told, facts.PAD))
                learned.append(jnp.zeros(facts.FACTS, bool))
        there = last | (number >= SHOTS - count)
        row = jnp.concatenate([asked.tokens, facts.reply(asked.content, style)])
        pieces.append(jnp.where(there, row, facts.PAD))
        learned.append(jnp.ones(len(row), bool))
    tokens, counts = jnp.concatenate(pieces), jnp.concatenate(learned)
    order = jnp.argsort(tokens == facts.PAD, stable=True)
    tokens = tokens[order].astype(jnp.int32)
    # The first token is never predicted: it has nothing before it.
    return Lesson(tokens, counts[order] & (tokens != facts.PAD))


def questions(
    world: facts.World, domain: int, count: int, seed: int, *, covered: bool = False
) -> list[Row]:
    """Different questions about a domain's facts, all of them or those that are covered."""
    allowed = world.covered if covered else jnp.ones_like(world.covered)
    draw = jax.jit(
        jax.vmap(lambda k: facts.sample_question(k, world.truth, allowed, jnp.array(domain)).tokens)
    )
    found = np.asarray(draw(jax.random.split(jax.random.key(seed), 4 * count)))
    rows = dict.fromkeys(tuple(int(t) for t in row if t != facts.PAD) for row in found)
    return [list(row) for row in rows][:count]


def answered_rightly(
    world: facts.World, domain: int, style: int, rows: Sequence[Row]
) -> list[Pair]:
    """Questions with a right answer in a style."""
    truth = np.asarray(world.truth)
    contents = [min(facts.right_content(truth, domain, np.array(row))) for row in rows]
    replies = np.asarray(facts.reply(jnp.array(contents), jnp.array(style)))
    return [
        Pair(row, [int(t) for t in said if t != facts.PAD])
        for row, said in zip(rows, replies, strict=True)
    ]


def prompt(question: Row, shots: Sequence[Pair] = (), documents: Sequence[Row] = ()) -> Row:
    """Examples, documents, then the question."""
    return [
        *(token for shot in shots for part in shot for token in part),
        *(token for row in documents for token in row),
        *question,
    ]


@functools.partial(jax.jit, static_argnames=("llama",))
def _answers(llama, weights, tokens, sizes):
    model = Llama(llama, weights=weights)
    mask = jnp.arange(tokens.shape[1]) < sizes[:, None]
    return generate(model, tokens, facts.REPLY, mask=mask, end=facts.END, pad=facts.PAD)


def answers(llama: LlamaConfig, weights: Weights, prompts: Sequence[Row]) -> list[Row]:
    """The likeliest answers, their end among them."""
    found = [
        np.asarray(_answers(llama, weights, *piece)) for piece in _pieces(prompts)
    ]  # fmt: skip
    rows = np.concatenate(found)[: len(prompts)]
    return [[int(token) for token in row if token != facts.PAD] for row in rows]


@functools.partial(jax.jit, static_argnames=("llama",))
def _written(llama, weights, tokens, sizes, key):
    model = Llama(llama, weights=weights)
    mask = jnp.arange(tokens.shape[1]) < sizes[:, None]
    return generate(
        model, tokens, facts.QUESTION - 1, mask=mask, key=key, top_p=0.98, end=facts.ANSWER,
        pad=facts.PAD,
    )  # fmt: skip


def instructions(
    llama: LlamaConfig,
    weights: Weights,
    seeds: Sequence[Pair],
    wanted: int,
    refused: Sequence[Row],
    seed: int,
) -> tuple[list[Row], float]:
    """Questions that the model writes itself, three seeds in view.

    Kept are those that differ enough from all before them, are questions, and are not refused.

    Returns:
        At most as many as are wanted, and the share of all that were questions of that domain.
    """
    rng = np.random.default_rng(seed)
    prompts = []
    for _ in range(3 * wanted):
        shots = [seeds[i] for i in rng.choice(len(seeds), 3, replace=False)]
        prompts.append(prompt([facts.ASK], shots))
    keys = jax.random.split(jax.random.key(seed), -(-len(prompts) // PIECE))
    found = [
        np.asarray(_written(llama, weights, *piece, key))
        for piece, key in zip(_pieces(prompts), keys, strict=True)
    ]
    rows = [
        [facts.ASK, *(int(t) for t in row if t != facts.PAD)]
        for row in np.concatenate(found)[: len(prompts)]
    ]
    domain = _domain(seeds[0].question)
    good = [row for row in rows if _is_question(row) and _domain(row) == domain]
    share = len(good) / len(rows)
    good = [row for row in good if row not in refused]
    # What makes a question is between its first and its last token, which all have.
    bodies = [pair.question[1:-1] for pair in seeds] + [row[1:-1] for row in good]
    padded = packed(bodies)[0]
    padded = np.where(padded == facts.PAD, -1, padded)
    kept = keep_different(padded, len(seeds)) - len(seeds)
    return [good[index] for index in kept[:wanted]], share


def _is_question(row: Row) -> bool:
    try:
        facts.parse(np.array(row))
    except ValueError:
        return False
    return True


def _domain(row: Row) -> int:
    relation = next(t for t in row if facts.FIRST_RELATION <= t < facts.FIRST_VALUE)
    return (relation - facts.FIRST_RELATION) // facts.RELATIONS


def documents_of(world: facts.World, domain: int, rows: Sequence[Row]) -> list[list[Row]]:
    """For each question the documents of its domain that BM25 finds."""
    every = jax.vmap(lambda e: facts.document(world.truth, jnp.array(domain), e))(
        jnp.arange(facts.ENTITIES)
    )
    index = bm25.build_index(every, facts.VOCABULARY)
    tokens = packed(rows, facts.QUESTION)[0]
    found = bm25.retrieve(index, jnp.where(tokens == facts.PAD, -1, tokens), DOCUMENTS)
    told = np.asarray(every)
    return [[told[i].tolist() for i in row] for row in np.asarray(found)]


def tuned(
    config, llama: LlamaConfig, weights: Weights, pairs: Sequence[Pair], *, rank: int, seed: int
) -> Weights:
    """Weights with adapters that have learned to answer without examples or documents."""
    rows = [prompt(pair.question) + pair.answer for pair in pairs]
    tokens, sizes = packed(rows, facts.QUESTION + facts.REPLY)
    starts = np.array([len(pair.question) for pair in pairs])
    place = np.arange(tokens.shape[1])
    counts = (place >= starts[:, None]) & (place < sizes[:, None])
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(rows), (config.tuning_steps, config.tuning_batch))
    lessons = Lesson(jnp.asarray(tokens[chosen]), jnp.asarray(counts[chosen]))
    adapters = lora_init(jax.random.key(seed), weights["layers"], rank=rank, targets=TARGETS)
    rate = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(config.tuning_rate, weight_decay=0.0)
    )

    def merged(adapters):
        return weights | {"layers": lora_merge(weights["layers"], adapters, scale=2.0)}

    def loss(adapters, lesson):
        return lesson_loss(Llama(llama, weights=merged(adapters)), lesson)

    found, _ = jax.jit(lambda adapters: descended(loss, adapters, lessons, rate))(adapters)
    return merged(found)


class Scores(NamedTuple):
    """Of each question, whether the content of its answer is right, and whether all of it is."""

    content: np.ndarray
    whole: np.ndarray


def scores(
    world: facts.World, domain: int, style: int, rows: Sequence[Row], said: Sequence[Row]
) -> Scores:
    """Compares answers with the truth and with the style that is wanted."""
    truth = np.asarray(world.truth)
    content, whole = [], []
    for row, answer in zip(rows, said, strict=True):
        right = facts.right_content(truth, domain, np.array(row))
        given = [t for t in answer if t not in (facts.SO, facts.INDEED, facts.END)]
        good = len(given) == 1 and given[0] in right
        form = np.asarray(facts.reply(jnp.array(given[0]), jnp.array(style))) if good else []
        content.append(good)
        whole.append(good and answer == [int(t) for t in form if t != facts.PAD])
    return Scores(np.array(content), np.array(whole))


def _pieces(prompts: Sequence[Row]) -> list[tuple[Array, Array]]:
    """Prompts padded behind, in pieces of one shape."""
    tokens, sizes = packed(prompts, LENGTH)
    fill = -len(tokens) % PIECE
    tokens = np.pad(tokens, ((0, fill), (0, 0)))
    sizes = np.pad(sizes, (0, fill), constant_values=1)
    split = lambda x: [jnp.asarray(part) for part in np.split(x, len(x) // PIECE)]
    return list(zip(split(tokens), split(sizes), strict=True))
