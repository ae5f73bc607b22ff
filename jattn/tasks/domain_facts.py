"""Facts of several domains, asked for in four forms and answered in four styles.

A domain has entities and relations of its own; a fact is the value that an entity has in a
relation. A question, and the forms it comes in, which the answer's content follows:

    ASK VALUE entity relation ANSWER           the value
    ASK WHETHER entity relation value ANSWER   YES or NO
    ASK WHO relation value ANSWER              an entity that has it
    ASK CHOOSE entity relation 4 values ANSWER which of them

Styles say how the content c is put: `c END`; `SO c END`; `c INDEED END`; `SO c INDEED END`. Which
is wanted a question does not say; examples do. A document tells the facts of one entity.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jattn.checks import check_number

DOMAINS, ENTITIES, RELATIONS, VALUES = 4, 48, 4, 12  # entities and relations of each domain
PAD, ASK, ANSWER, END, SO, INDEED, YES, NO, DOCUMENT, VALUE, WHETHER, WHO, CHOOSE = range(13)
FORMS = (VALUE, WHETHER, WHO, CHOOSE)
STYLES = 4
FIRST_ENTITY = 13
FIRST_RELATION = FIRST_ENTITY + DOMAINS * ENTITIES
FIRST_VALUE = FIRST_RELATION + DOMAINS * RELATIONS
VOCABULARY = FIRST_VALUE + RELATIONS * VALUES
QUESTION, REPLY = 9, 4  # tokens of the longest question and answer
FACTS = 2 + 2 * RELATIONS  # tokens of a document


class World(NamedTuple):
    """What is true.

    Attributes:
        truth: the value of each fact, `[domains, entities, relations]`.
        covered: which facts are asked for in training; the others stand in documents only.
    """

    truth: Int[Array, "domains entities relations"]
    covered: Bool[Array, "domains entities relations"]


class Question(NamedTuple):
    """A question, or a batch of them.

    Attributes:
        domain, form, entity, relation: numbers; of form WHO the entity is one that is right.
        tokens: `[*b, QUESTION]`, padded behind.
        content: the token that answers it.
    """

    domain: Int[Array, "*b"]
    form: Int[Array, "*b"]
    entity: Int[Array, "*b"]
    relation: Int[Array, "*b"]
    tokens: Int[Array, "*b q"]
    content: Int[Array, "*b"]


def domain_facts(key: jax.Array, *, covered: float = 0.7) -> World:
    """Draws a world.

    Args:
        key: draws everything.
        covered: share of facts that are covered.

    Raises:
        ValueError: a share out of range.

    Example:
        >>> domain_facts(jax.random.key(0)).truth.shape
        (4, 48, 4)
    """
    check_number("covered", covered, least=0)
    if covered > 1:
        raise ValueError(f"covered: expected at most 1, got {covered}")
    of_truth, of_cover = jax.random.split(key)
    shape = (DOMAINS, ENTITIES, RELATIONS)
    truth = jax.random.randint(of_truth, shape, 0, VALUES)
    return World(truth, jax.random.bernoulli(of_cover, covered, shape))


def entity_token(domain: Int[Array, "*#b"], entity: Int[Array, "*#b"]) -> Int[Array, "*b"]:
    """The token of an entity.

    Example:
        >>> int(entity_token(jnp.array(1), jnp.array(2))) - FIRST_ENTITY
        50
    """
    return FIRST_ENTITY + domain * ENTITIES + entity


def relation_token(domain: Int[Array, "*#b"], relation: Int[Array, "*#b"]) -> Int[Array, "*b"]:
    """The token of a domain's relation."""
    return FIRST_RELATION + domain * RELATIONS + relation


def value_token(relation: Int[Array, "*#b"], value: Int[Array, "*#b"]) -> Int[Array, "*b"]:
    """The token of a relation's value, the same in all domains."""
    return FIRST_VALUE + relation * VALUES + value


def sample_question(
    key: jax.Array,
    truth: Int[Array, "domains entities relations"],
    allowed: Bool[Array, "domains entities relations"],
    domain: Int[Array, ""],
    *,
    forms: tuple[int, ...] = FORMS,
) -> Question:
    """Draws a question about one of the facts that are allowed.

    Args:
        key: draws everything.
        truth: that of a `World`.
        allowed: facts that may be asked for.
        domain: which.
        forms: some of `FORMS`.

    Example:
        >>> world = domain_facts(jax.random.key(0))
        >>> asked = sample_question(jax.random.key(1), world.truth, world.covered, jnp.array(2))
        >>> parse(np.asarray(asked.tokens))[1:] == (int(asked.entity), int(asked.relation))
        True
    """
    of_fact, of_form, of_values, of_right = jax.random.split(key, 4)
    logs = jnp.where(allowed[domain].ravel(), 0.0, -jnp.inf)
    entity, relation = jnp.divmod(jax.random.categorical(of_fact, logs), RELATIONS)
    kind = jax.random.randint(of_form, (), 0, len(forms))
    form = jnp.array(forms)[kind]
    value = truth[domain, entity, relation]
    # Four values, the right one among them.
    order = jax.random.permutation(of_values, VALUES)
    others = order[jnp.argsort(order == value, stable=True)][:3]
    place = jax.random.randint(of_right, (), 0, 4)
    choice = jnp.insert(others, place, value)
    right = jax.random.bernoulli(of_right)
    shown = jnp.where(right, value, others[0])
    who, what = entity_token(domain, entity), relation_token(domain, relation)
    as_token = lambda v: value_token(relation, v)
    mark = jnp.array(ANSWER)
    pad = lambda *tokens: jnp.zeros(QUESTION, jnp.int32).at[: len(tokens)].set(jnp.stack(tokens))
    head = lambda kind: (jnp.array(ASK), jnp.array(kind))
    rows = {
        VALUE: (pad(*head(VALUE), who, what, mark), as_token(value)),
        WHETHER: (
            pad(*head(WHETHER), who, what, as_token(shown), mark), jnp.where(right, YES, NO)
        ),
        WHO: (pad(*head(WHO), what, as_token(value), mark), who),
        CHOOSE: (
            pad(*head(CHOOSE), who, what, *(as_token(v) for v in choice), mark), as_token(value)
        ),
    }  # fmt: skip
    tokens, content = (jnp.stack([rows[f][i] for f in forms])[kind] for i in (0, 1))
    return Question(domain, form, entity, relation, tokens, content)


def reply(content: Int[Array, "*#b"], style: Int[Array, "*#b"]) -> Int[Array, "*b r"]:
    """The answer in a style, padded behind.

    Example:
        >>> reply(jnp.array(YES), jnp.array(3)).tolist() == [SO, YES, INDEED, END]
        True
    """
    content, style = jnp.broadcast_arrays(content, style)
    so, indeed = style % 2 == 1, style >= 2
    end, pad = jnp.full_like(content, END), jnp.full_like(content, PAD)
    first = jnp.where(so, SO, content)
    second = jnp.where(so, content, jnp.where(indeed, INDEED, end))
    third = jnp.where(so, jnp.where(indeed, INDEED, end), jnp.where(indeed, end, pad))
    fourth = jnp.where(so & indeed, end, pad)
    return jnp.stack([first, second, third, fourth], -1)


def document(
    truth: Int[Array, "domains entities relations"], domain: Int[Array, ""], entity: Int[Array, ""]
) -> Int[Array, " d"]:
    """Tokens of what is told about an entity.

    Example:
        >>> world = domain_facts(jax.random.key(0))
        >>> document(world.truth, jnp.array(0), jnp.array(3)).shape == (FACTS,)
        True
    """
    relation = jnp.arange(RELATIONS)
    pairs = jnp.stack(
        [relation_token(domain, relation), value_token(relation, truth[domain, entity])], 1
    )
    head = jnp.stack([jnp.array(DOCUMENT), entity_token(domain, entity)])
    return jnp.concatenate([head, pairs.ravel()])


def parse(tokens: Int[np.ndarray, " t"]) -> tuple[int, int, int]:
    """The form, entity and relation of a question, each within its domain; -1 where it has none.

    Raises:
        ValueError: no question.

    Example:
        >>> parse(np.array([ASK, VALUE, FIRST_ENTITY + 50, FIRST_RELATION + 5, ANSWER]))
        (9, 2, 1)
    """
    row = [int(token) for token in tokens if token != PAD]
    entities = [t for t in row if FIRST_ENTITY <= t < FIRST_RELATION]
    relations = [t for t in row if FIRST_RELATION <= t < FIRST_VALUE]
    values = [t for t in row if t >= FIRST_VALUE]
    form = row[1] if len(row) > 1 else -1
    counts = {VALUE: (1, 0, 5), WHETHER: (1, 1, 6), WHO: (0, 1, 5), CHOOSE: (1, 4, 9)}
    if (
        row[:1] != [ASK]
        or row[-1:] != [ANSWER]
        or len(relations) != 1
        or counts.get(form) != (len(entities), len(values), len(row))
    ):
        raise ValueError(f"tokens: expected a question, got {row}")
    relation = (relations[0] - FIRST_RELATION) % RELATIONS
    domains = {(t - FIRST_ENTITY) // ENTITIES for t in entities}
    domains.add((relations[0] - FIRST_RELATION) // RELATIONS)
    if len(domains) > 1 or any((v - FIRST_VALUE) // VALUES != relation for v in values):
        raise ValueError("tokens: expected an entity, a relation and values that go together")
    entity = (entities[0] - FIRST_ENTITY) % ENTITIES if entities else -1
    return form, entity, relation


def right_content(
    truth: Int[np.ndarray, "domains entities relations"], domain: int, tokens: Int[np.ndarray, " t"]
) -> set[int]:
    """The tokens that answer a question rightly; none if no answer is right.

    Raises:
        ValueError: no question.

    Example:
        >>> world = domain_facts(jax.random.key(0))
        >>> asked = sample_question(jax.random.key(1), world.truth, world.covered, jnp.array(2))
        >>> int(asked.content) in right_content(np.asarray(world.truth), 2, np.asarray(asked.tokens))
        True
    """  # noqa: E501
    form, entity, relation = parse(tokens)
    row = [int(token) for token in tokens if token != PAD]
    truth = np.asarray(truth)
    first = FIRST_VALUE + relation * VALUES
    if form == WHO:
        value = row[3] - first
        having = np.flatnonzero(truth[domain, :, relation] == value)
        return {int(FIRST_ENTITY + domain * ENTITIES + e) for e in having}
    value = int(first + truth[domain, entity, relation])
    if form == WHETHER:
        return {YES if row[4] == value else NO}
    return {value} if form == VALUE or value in row[4:8] else set()
