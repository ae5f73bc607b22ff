"""Biographies of invented people: facts whose distribution is known, and texts that tell them.

A person has attributes; a fact is a person, an attribute and a value. Of some facts the training
texts name one value only, of others two or three, with known weights: what a model should be unsure
of is known. The last attribute may have many values at a time; the others cannot.

A text is `START person`, then sentences of one to three clauses `attribute value`, each closed by
`STOP`, then `END`. Every attribute comes once, in any order.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count, check_number

PEOPLE, ATTRIBUTES, VALUES = 64, 8, 16
PAD, START, STOP, END, ASK, REPHRASE, SAME, YES, NO, SEP = range(10)
FIRST_PERSON = 10
FIRST_ATTRIBUTE = FIRST_PERSON + PEOPLE
FIRST_VALUE = FIRST_ATTRIBUTE + ATTRIBUTES
VOCABULARY = FIRST_VALUE + ATTRIBUTES * VALUES
CLAUSES = 3  # of a sentence at most
LENGTH = 3 + 3 * ATTRIBUTES  # of the longest text
WEIGHTS = ((1.0, 0.0, 0.0), (0.6, 0.4, 0.0), (0.5, 0.3, 0.2))
FUNCTIONAL = np.arange(ATTRIBUTES) < ATTRIBUTES - 1


class World(NamedTuple):
    """What is said of people.

    Attributes:
        probability: of each value of each fact, `[people, attributes, values]`.
        ambiguous: which facts have more than one.
        truth: the value that is told most, `[people, attributes]`.
    """

    probability: Float[Array, "people attributes values"]
    ambiguous: Bool[Array, "people attributes"]
    truth: Int[Array, "people attributes"]


def biographies(key: jax.Array, *, ambiguous: float = 0.4) -> World:
    """Draws a world.

    Args:
        key: draws everything.
        ambiguous: share of facts with two or three values. The last attribute, which may have
            many, always has three, each as often.

    Raises:
        ValueError: a share out of range.

    Example:
        >>> world = biographies(jax.random.key(0))
        >>> world.probability.shape, bool(jnp.allclose(world.probability.sum(-1), 1))
        ((64, 8, 16), True)
    """
    check_number("ambiguous", ambiguous, least=0)
    if ambiguous > 1:
        raise ValueError(f"ambiguous: expected at most 1, got {ambiguous}")
    of_kind, of_two, of_order = jax.random.split(key, 3)
    shape = (PEOPLE, ATTRIBUTES)
    unsure = jax.random.bernoulli(of_kind, ambiguous, shape)
    kind = jnp.where(unsure, 1 + jax.random.bernoulli(of_two, 0.5, shape), 0)
    weights = jnp.array(WEIGHTS)[kind]
    many = ~jnp.asarray(FUNCTIONAL)
    weights = jnp.where(many[:, None], 1 / 3, weights)
    order = jnp.argsort(jax.random.uniform(of_order, (*shape, VALUES)), axis=-1)
    padded = jnp.pad(weights, ((0, 0), (0, 0), (0, VALUES - 3)))
    probability = jnp.take_along_axis(padded, jnp.argsort(order, axis=-1), axis=-1)
    return World(probability, (unsure | many) & (weights[..., 1] > 0), order[..., 0])


def value_token(attribute: Int[Array, "*n"], value: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """The token of an attribute's value.

    Example:
        >>> int(value_token(jnp.array(1), jnp.array(2))) - FIRST_VALUE
        18
    """
    return FIRST_VALUE + attribute * VALUES + value


def sample_text(key: jax.Array, world: World, person: Int[Array, ""]) -> Int[Array, " t"]:
    """Tokens of a text about a person, padded behind.

    Example:
        >>> world = biographies(jax.random.key(0))
        >>> text = sample_text(jax.random.key(1), world, jnp.array(5))
        >>> parse(np.asarray(text))[0] == 5, int((text >= FIRST_VALUE).sum())
        (True, 8)
    """
    of_order, of_value, of_size = jax.random.split(key, 3)
    attribute = jax.random.permutation(of_order, ATTRIBUTES)
    logs = jnp.log(world.probability[person, attribute])
    token = value_token(attribute, jax.random.categorical(of_value, logs))
    size = jax.random.randint(of_size, (ATTRIBUTES,), 1, CLAUSES + 1)
    ends = jnp.cumsum(size)  # facts in front of each sentence's end
    number = jnp.arange(ATTRIBUTES)
    last = (number[:, None] + 1 == ends).any(1) | (number == ATTRIBUTES - 1)
    at = 2 + 2 * number + jnp.cumsum(last) - last
    text = jnp.zeros(LENGTH, jnp.int32).at[0].set(START).at[1].set(FIRST_PERSON + person)
    text = text.at[at].set(FIRST_ATTRIBUTE + attribute).at[at + 1].set(token)
    text = text.at[jnp.where(last, at + 2, LENGTH)].set(STOP, mode="drop")
    return text.at[at[-1] + 3].set(END)


def parse(tokens: Int[np.ndarray, " t"]) -> tuple[int, list[list[tuple[int, int]]]]:
    """The person of a text, and of each sentence the clauses `(attribute, value)`.

    Raises:
        ValueError: an attribute that there is not, or no text.

    Example:
        >>> parse(np.array([START, FIRST_PERSON, FIRST_ATTRIBUTE, FIRST_VALUE + 3, STOP, END]))
        (0, [[(0, 3)]])
    """
    if len(tokens) < 2 or tokens[0] != START:
        raise ValueError("tokens: expected a text, which begins with START and a person")
    sentences, now, attribute = [], [], None
    for token in map(int, tokens[2:]):
        if token >= FIRST_VALUE and attribute is not None:
            now.append((attribute, (token - FIRST_VALUE) % VALUES))
        elif FIRST_ATTRIBUTE <= token < FIRST_VALUE:
            attribute = token - FIRST_ATTRIBUTE
        elif token == STOP:
            sentences.append(now)
            now = []
        elif token in (END, PAD):
            break
        else:
            raise ValueError(f"tokens: expected an attribute, a value, STOP or END, got {token}")
    return int(tokens[1]) - FIRST_PERSON, sentences


def render(person: int, sentences: list[list[tuple[int, int]]]) -> list[int]:
    """Tokens of sentences, without the end; those without a clause are left out.

    Example:
        >>> parse(np.array(render(3, [[(1, 2)], [], [(0, 0), (2, 5)]])))
        (3, [[(1, 2)], [(0, 0), (2, 5)]])
    """
    check_count("person", person, least=0)
    text = [START, FIRST_PERSON + person]
    for sentence in filter(None, sentences):
        for attribute, value in sentence:
            if not 0 <= attribute < ATTRIBUTES:
                raise ValueError(f"attribute: expected 0 to {ATTRIBUTES - 1}, got {attribute}")
            text += [FIRST_ATTRIBUTE + attribute, FIRST_VALUE + attribute * VALUES + value]
        text.append(STOP)
    return text
