"""Made worlds to search in: names, facts, questions, and what BM25 finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks import fictional_search as task


@pytest.fixture(scope="module")
def asked():
    keys = jax.random.split(jax.random.key(0), 200)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(task.sample_question))(keys))


def test_worlds(asked):
    for names, facts in zip(asked.world.names, asked.world.facts, strict=True):
        assert len({tuple(name) for name in names}) == task.ENTITIES
        assert (facts != np.arange(task.ENTITIES)[:, None]).all()
    assert asked.world.names.min() >= task.FIRST_WORD
    assert asked.world.names.max() < task.VOCABULARY


def test_questions_are_answered_by_their_documents(asked):
    assert set(asked.hops) == {1, 2}
    assert abs((asked.hops == 2).mean() - 0.5) < 0.12
    for row in range(200):
        names = asked.world.names[row]
        find = lambda name, names=names: int(np.flatnonzero((names == name).all(1))[0])
        _, *name, first, second = asked.tokens[row]
        entity = find(name)
        for relation, fact in list(zip((first, second), asked.gold[row], strict=True))[
            : asked.hops[row]
        ]:
            end = asked.world.facts[row, entity, relation - task.FIRST_RELATION]
            np.testing.assert_array_equal(fact, [*names[entity], relation, *names[end]])
            entity = end
        np.testing.assert_array_equal(names[entity], asked.answer[row])
        assert (second == task.NONE) == (asked.hops[row] == 1)


def test_the_right_query_mostly_finds_its_document(asked):
    world = jax.tree.map(jnp.asarray, asked.world)
    find = jax.jit(jax.vmap(lambda w, q: task.search(w, q[None], 2)[0]))
    found = find(world, jnp.asarray(asked.gold[:, 0, :3]))
    share = float(task.holds(found, jnp.asarray(asked.gold[:, 0])).mean())
    assert 0.7 < share <= 1
    # Names overlap, and objects have names, too: not always first, and a wrong query seldom.
    assert float((found[:, 0] == asked.gold[:, 0]).all(-1).mean()) < 1
    other = find(world, jnp.asarray(asked.gold[::-1, 0, :3].copy()))
    assert float(task.holds(other, jnp.asarray(asked.gold[:, 0])).mean()) < 0.05


@pytest.mark.usefixtures("plain_checks")
def test_bad_input(asked):
    world = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), asked.world)
    with pytest.raises(ValueError, match="top: expected at least 1, got 0"):
        task.search(world, jnp.zeros((1, 3), int), 0)
