"""Search in made worlds: names of two words, facts as documents, questions of one or two hops.

A world has entities, each named by two of some words, so that names overlap; every entity has one
fact for each relation, whose object is another entity. A document is a fact, `name name relation
name name`. A question is `QUESTION name name relation NONE` or, of two hops, `QUESTION name name
relation relation`, the second relation being that of the first one's object. Worlds are drawn anew
for every question: nothing can be learned by heart.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jattn.checks import check_count
from jattn.tasks import bm25

ENTITIES, RELATIONS, WORDS, DOCUMENT = 40, 6, 60, 5
PAD, SEARCH, JUDGE, YES, NO, ANSWER, QUESTION, NONE = range(8)
FIRST_RELATION = 8
FIRST_WORD = FIRST_RELATION + RELATIONS
VOCABULARY = FIRST_WORD + WORDS
PROMPT = 5  # tokens of a question


class World(NamedTuple):
    """A world.

    Attributes:
        names: tokens of each entity's two words, `[entities, 2]`.
        facts: the object of each entity's relation, `[entities, relations]`.
    """

    names: Int[Array, "*n entities 2"]
    facts: Int[Array, "*n entities relations"]


class Question(NamedTuple):
    """A question in its world.

    Attributes:
        world: where it is asked.
        tokens: of the question, `[5]`.
        hops: 1 or 2.
        gold: documents that lead to the answer, `[2, 5]`; the second of one hop is -1.
        answer: tokens of the answer's name, `[2]`.
    """

    world: World
    tokens: Int[Array, "*n 5"]
    hops: Int[Array, "*n"]
    gold: Int[Array, "*n 2 5"]
    answer: Int[Array, "*n 2"]


def sample_world(key: jax.Array) -> World:
    """Draws a world; no two entities have the same name, and no fact is of an entity and itself.

    Example:
        >>> world = sample_world(jax.random.key(0))
        >>> world.names.shape, bool((world.facts != jnp.arange(ENTITIES)[:, None]).all())
        ((40, 2), True)
    """
    of_names, of_facts = jax.random.split(key)
    pair = jax.random.choice(of_names, WORDS**2, (ENTITIES,), replace=False)
    names = FIRST_WORD + jnp.stack([pair // WORDS, pair % WORDS], 1)
    step = jax.random.randint(of_facts, (ENTITIES, RELATIONS), 1, ENTITIES)
    return World(names, (jnp.arange(ENTITIES)[:, None] + step) % ENTITIES)


def document(world: World, entity: Int[Array, "*k"], relation: Int[Array, "*k"]) -> Array:
    """The document of a fact, `[*k, 5]`.

    Example:
        >>> world = sample_world(jax.random.key(0))
        >>> document(world, jnp.arange(3), jnp.zeros(3, int)).shape
        (3, 5)
    """
    names, relation = world.names, jnp.asarray(relation)
    middle = (FIRST_RELATION + relation)[..., None]
    return jnp.concatenate([names[entity], middle, names[world.facts[entity, relation]]], -1)


def documents(world: World) -> Int[Array, "facts 5"]:
    """All documents, those of an entity behind one another.

    Example:
        >>> documents(sample_world(jax.random.key(0))).shape
        (240, 5)
    """
    entity, relation = jnp.divmod(jnp.arange(ENTITIES * RELATIONS), RELATIONS)
    return document(world, entity, relation)


def sample_question(key: jax.Array) -> Question:
    """A question of one or two hops, each as often, in a world of its own.

    Example:
        >>> question = sample_question(jax.random.key(0))
        >>> question.tokens[0] == QUESTION, question.gold.shape
        (Array(True, dtype=bool), (2, 5))
    """
    of_world, of_entity, of_relation, of_hops = jax.random.split(key, 4)
    world = sample_world(of_world)
    entity = jax.random.randint(of_entity, (), 0, ENTITIES)
    first, second = jax.random.randint(of_relation, (2,), 0, RELATIONS)
    two = jax.random.bernoulli(of_hops)
    middle = world.facts[entity, first]
    end = jnp.where(two, world.facts[middle, second], middle)
    relations = jnp.stack([FIRST_RELATION + first, jnp.where(two, FIRST_RELATION + second, NONE)])
    tokens = jnp.concatenate([jnp.array([QUESTION]), world.names[entity], relations])
    other = jnp.where(two, document(world, middle, second), -1)
    gold = jnp.stack([document(world, entity, first), other])
    return Question(world, tokens, 1 + two.astype(jnp.int32), gold, world.names[end])


def search(world: World, query: Int[Array, "q t"], top: int) -> Int[Array, "q found 5"]:
    """The documents that BM25 finds, best first, inside jit.

    Args:
        world: whose documents are searched.
        query: tokens.
        top: how many are given.

    Example:
        >>> world = sample_world(jax.random.key(0))
        >>> search(world, document(world, jnp.array([3]), jnp.array([2]))[:, :3], 2).shape
        (1, 2, 5)
    """
    check_count("top", top)
    rows = documents(world)
    return rows[bm25.retrieve(bm25.build_index(rows, VOCABULARY), query, top)]


def holds(found: Int[Array, "*n k 5"], wanted: Int[Array, "*n 5"]) -> Bool[Array, "*n"]:
    """Whether a document is among those found.

    Example:
        >>> bool(holds(jnp.ones((2, 5), int), jnp.ones(5, int)))
        True
    """
    return (found == wanted[..., None, :]).all(-1).any(-1)


def show(tokens: Int[np.ndarray, " t"]) -> str:
    """Tokens in words, for people; padding is left out.

    Example:
        >>> show(np.array([SEARCH, FIRST_WORD, FIRST_WORD + 1, FIRST_RELATION, YES, PAD]))
        '<search> w0 w1 r0 Y'
    """
    marks = {SEARCH: "<search>", JUDGE: "<judge>", YES: "Y", NO: "N", ANSWER: "<answer>"}
    marks |= {QUESTION: "<question>", NONE: "-"}
    words = []
    for token in map(int, tokens):
        if token == PAD:
            continue
        if token in marks:
            words.append(marks[token])
        elif token < FIRST_WORD:
            words.append(f"r{token - FIRST_RELATION}")
        else:
            words.append(f"w{token - FIRST_WORD}")
    return " ".join(words)
