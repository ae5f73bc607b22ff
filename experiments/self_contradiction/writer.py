"""A small model that writes biographies, fills gaps in them, writes clauses anew, and judges pairs.

It learns four kinds of rows: texts; questions, `ASK person attribute value END`; sentences with
their clauses in another order, `REPHRASE person clauses SEP clauses STOP`; and pairs of clauses,
`SAME person`, then `clause SEP clause YES|NO` again and again, YES where they cannot both be true.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.word_models import Lesson, packed
from jattn.nn import Llama, LlamaConfig
from jattn.nn.llama import Weights
from jattn.nn.rollout import Grammar, rollout
from jattn.tasks import biographies as bio

SHARES = np.array([0.5, 0.1, 0.1, 0.3])  # of texts, questions, rephrased sentences and pairs
PAIR = 6  # tokens of a pair, with what is said of it
Sentences = list[list[tuple[int, int]]]
PIECE = 512  # rows of a pass


def sample_lesson(world: bio.World, key: jax.Array) -> Lesson:
    """One row to learn from."""
    of_kind, of_person, of_text, of_more = jax.random.split(key, 4)
    person = jax.random.randint(of_person, (), 0, bio.PEOPLE)
    text = bio.sample_text(of_text, world, person)
    rows = [
        _lesson(text, 2),
        _question(of_more, world, person),
        _rephrased(of_more, world, person),
        _pairs(of_more, person),
    ]
    kind = jax.random.choice(of_kind, len(rows), p=jnp.asarray(SHARES))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[kind], *rows)


def _lesson(tokens: Array, start: Array | int) -> Lesson:
    row = jnp.zeros(bio.LENGTH, jnp.int32).at[: len(tokens)].set(tokens)
    return Lesson(row, (jnp.arange(bio.LENGTH) >= start) & (row != bio.PAD))


def _draw(key: jax.Array, world: bio.World, person: Array, attribute: Array) -> Array:
    logs = jnp.log(world.probability[person, attribute])
    return bio.value_token(attribute, jax.random.categorical(key, logs))


def _question(key: jax.Array, world: bio.World, person: Array) -> Lesson:
    of_attribute, of_value = jax.random.split(key)
    attribute = jax.random.randint(of_attribute, (), 0, bio.ATTRIBUTES)
    value = _draw(of_value, world, person, attribute)
    who, what = bio.FIRST_PERSON + person, bio.FIRST_ATTRIBUTE + attribute
    return _lesson(jnp.stack([jnp.array(bio.ASK), who, what, value, jnp.array(bio.END)]), 3)


def _rephrased(key: jax.Array, world: bio.World, person: Array) -> Lesson:
    of_count, of_attribute, of_value, of_order = jax.random.split(key, 4)
    count = jax.random.randint(of_count, (), 1, bio.CLAUSES + 1)
    attribute = jax.random.permutation(of_attribute, bio.ATTRIBUTES)[: bio.CLAUSES]
    keys = jax.random.split(of_value, bio.CLAUSES)
    value = jax.vmap(lambda k, a: _draw(k, world, person, a))(keys, attribute)
    number = jnp.arange(bio.CLAUSES)
    there = number < count
    # Clauses that are there in another order, in front.
    order = jnp.argsort(jnp.where(there, jax.random.uniform(of_order, there.shape), 2.0))
    row = jnp.zeros(bio.LENGTH, jnp.int32)
    row = row.at[0].set(bio.REPHRASE).at[1].set(bio.FIRST_PERSON + person)
    for shift, which in ((2, number), (3 + 2 * count, order)):
        at = jnp.where(there, shift + 2 * number, bio.LENGTH)
        row = row.at[at].set(bio.FIRST_ATTRIBUTE + attribute[which], mode="drop")
        row = row.at[at + 1].set(value[which], mode="drop")
    row = row.at[2 + 2 * count].set(bio.SEP).at[3 + 4 * count].set(bio.STOP)
    return _lesson(row, 3 + 2 * count)


def _pairs(key: jax.Array, person: Array) -> Lesson:
    """So many pairs that the row is full; what counts is what is said of each."""
    of_attribute, of_value, of_other, of_same = jax.random.split(key, 4)
    shape = ((bio.LENGTH - 2) // PAIR,)
    attribute = jax.random.randint(of_attribute, shape, 0, bio.ATTRIBUTES)
    value = jax.random.randint(of_value, shape, 0, bio.VALUES)
    other = (value + jax.random.randint(of_other, shape, 1, bio.VALUES)) % bio.VALUES
    other = jnp.where(jax.random.bernoulli(of_same, shape=shape), value, other)
    wrong = (value != other) & jnp.asarray(bio.FUNCTIONAL)[attribute]
    what = bio.FIRST_ATTRIBUTE + attribute
    first, second = (bio.value_token(attribute, which) for which in (value, other))
    said = jnp.where(wrong, bio.YES, bio.NO)
    pairs = jnp.stack([what, first, jnp.full(shape, bio.SEP), what, second, said], 1)
    head = jnp.stack([jnp.array(bio.SAME), bio.FIRST_PERSON + person])
    lesson = _lesson(jnp.concatenate([head, pairs.ravel()]), 2)
    return lesson._replace(counts=(lesson.tokens == bio.YES) | (lesson.tokens == bio.NO))


def text_grammar(*, one_sentence: bool = False) -> Grammar:
    """Sentences of one to three clauses, then the end; or one sentence."""
    k, a = bio.CLAUSES, bio.ATTRIBUTES
    # 0: a sentence begins; 1 to k: so many clauses; then a value of each attribute and place; the
    # next to last: behind a sentence; the last: the end.
    count = 1 + k + k * a + 2
    behind, end = count - 2, count - 1
    allowed = np.zeros((count, bio.VOCABULARY), bool)
    following = np.full((count, bio.VOCABULARY), end)
    attributes = bio.FIRST_ATTRIBUTE + np.arange(a)
    for place in range(k + 1):
        if place < k:
            for state in {place, behind} if place == 0 else {place}:
                allowed[state, attributes] = True
                following[state, attributes] = 1 + k + place * a + np.arange(a)
            for attribute in range(a):
                state = 1 + k + place * a + attribute
                values = bio.FIRST_VALUE + attribute * bio.VALUES + np.arange(bio.VALUES)
                allowed[state, values] = True
                following[state, values] = place + 1
        if place:
            allowed[place, bio.STOP] = True
            following[place, bio.STOP] = end if one_sentence else behind
    allowed[behind, bio.END] = True
    state = np.arange(count)
    return Grammar(*map(jnp.asarray, (allowed, following, state < 0, state == end)))


def write(
    llama: LlamaConfig, weights: Weights, prompts: Sequence[Sequence[int]], key: jax.Array,
    *, one_sentence: bool = False,
) -> list[list[int]]:  # fmt: skip
    """What the model writes behind each prompt, drawn at temperature 1."""
    tokens, sizes = packed(prompts, bio.LENGTH)
    made = _write(llama, weights, tokens, sizes, key, one_sentence=one_sentence)
    rows, lengths = np.asarray(made.tokens), np.asarray(made.length)
    return [row[s:n].tolist() for row, s, n in zip(rows, sizes, lengths, strict=True)]


@functools.partial(jax.jit, static_argnames=("llama", "one_sentence"))
def _write(llama, weights, tokens, sizes, key, *, one_sentence):
    grammar = text_grammar(one_sentence=one_sentence)
    room = bio.LENGTH + (2 * bio.CLAUSES + 1) * one_sentence
    return rollout(Llama(llama, weights=weights), tokens, sizes, grammar, room=room, key=key)


@functools.partial(jax.jit, static_argnames=("llama",))
def _next(llama, weights, tokens, sizes):
    logits = Llama(llama, weights=weights)(tokens)
    return jax.nn.softmax(logits[jnp.arange(len(tokens)), sizes - 1])


def next_probability(
    llama: LlamaConfig, weights: Weights, prompts: Sequence[Sequence[int]]
) -> np.ndarray:
    """Probabilities of the token behind each prompt, `[n, vocabulary]`."""
    tokens, sizes = packed(prompts, bio.LENGTH)
    pieces = max(1, -(-len(tokens) // PIECE))
    fill = pieces * PIECE - len(tokens)
    tokens, sizes = np.pad(tokens, ((0, fill), (0, 0))), np.pad(sizes, (0, fill), constant_values=1)
    split = lambda array: array.reshape(pieces, PIECE, *array.shape[1:])
    found = [_next(llama, weights, *part) for part in zip(split(tokens), split(sizes), strict=True)]
    return np.concatenate([*map(np.asarray, found)])[: len(prompts)]


def of_values(probability: np.ndarray, attributes: Sequence[int]) -> np.ndarray:
    """Probabilities of each attribute's values among them, `[n, values]`."""
    first = bio.FIRST_VALUE + bio.VALUES * np.asarray(attributes, int)
    found = np.take_along_axis(probability, first[:, None] + np.arange(bio.VALUES), axis=1)
    return found / found.sum(1, keepdims=True)


def gap(person: int, prefix: Sentences, attribute: int) -> list[int]:
    """The prompt that asks for the value of an attribute behind some sentences."""
    return [*bio.render(person, prefix), bio.FIRST_ATTRIBUTE + attribute]


def pair_prompt(person: int, attribute: int, first: int, second: int) -> list[int]:
    """The prompt that asks whether two clauses cannot both be true."""
    what = bio.FIRST_ATTRIBUTE + attribute
    value = bio.FIRST_VALUE + attribute * bio.VALUES
    who = bio.FIRST_PERSON + person
    return [bio.SAME, who, what, value + first, bio.SEP, what, value + second]
