"""Roll-outs with a tool: grammar, offsets of each row, log-probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn.nn import Llama, LlamaConfig
from jattn.nn.rollout import Grammar, free_grammar, log_probabilities, rollout

VOCAB, ROOM, END, ASK = 12, 26, 11, 10
config = LlamaConfig(vocab_size=VOCAB, dim=16, layers=2, heads=2, kv_heads=1, hidden=16)
PROMPT = jax.random.randint(jax.random.key(3), (6, 5), 1, 9)
LENGTHS = jnp.array([5, 2, 4, 5, 1, 3])


@pytest.fixture(scope="module")
def model() -> Llama:
    return nnx.jit(lambda: Llama(config, rngs=nnx.Rngs(0)))()


def grammar() -> Grammar:
    """1, 2 or 3, then ASK or END; ASK calls, and starts again."""
    word = (jnp.arange(VOCAB) > 0) & (jnp.arange(VOCAB) < 4)
    none = jnp.zeros(VOCAB, bool)
    more = none.at[jnp.array([ASK, END])].set(True)
    at = jnp.ones(VOCAB, int)
    behind = at.at[ASK].set(2).at[END].set(3)
    state = jnp.arange(4)
    return Grammar(
        jnp.stack([word, more, none, none]), jnp.stack([at, behind, 0 * at, 3 * at]),
        state == 2, state == 3,
    )  # fmt: skip


def tool(tokens, length, state):
    """Tells the last drawn word's successors: one or two of them."""
    word = tokens[jnp.arange(len(length)), length - 2]
    return jnp.stack([(word + 1) % 9 + 1, (word + 2) % 9 + 1], 1), 1 + word % 2


@pytest.fixture(scope="module")
def run(model):
    return jax.jit(
        lambda prompt, lengths: rollout(
            model, prompt, lengths, grammar(), room=ROOM, key=jax.random.key(1), tool=tool, calls=4,
            temperature=3.0,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(run):
    return run(PROMPT, LENGTHS)


def test_rows_are_what_the_grammar_and_the_tool_say(made):
    called = 0
    for row in range(6):
        tokens, agent = np.asarray(made.tokens[row]), np.asarray(made.agent[row])
        start, end = int(LENGTHS[row]), int(made.length[row])
        np.testing.assert_array_equal(tokens[:start], PROMPT[row, :start])
        assert not agent[:start].any()
        assert not agent[end:].any()
        assert (tokens[end:] == 0).all()
        for index in np.flatnonzero(agent & (tokens == ASK)):
            called += 1
            if index + 1 == end:
                continue  # one call too many
            word = tokens[index - 1]
            count = 1 + word % 2
            told = [(word + 1) % 9 + 1, (word + 2) % 9 + 1][:count]
            np.testing.assert_array_equal(tokens[index + 1 : index + 1 + count], told)
            assert not agent[index + 1 : index + 1 + count].any()
            assert agent[index + 1 + count]
            assert tokens[index + 1 + count] < ASK  # the grammar's first state
        assert made.ended[row] == (tokens[end - 1] == END)
    assert called > 2


def test_log_probabilities_are_those_of_one_pass(model, made):
    again = log_probabilities(model, made, grammar(), temperature=3.0)
    np.testing.assert_allclose(again.per_token, made.log_probability[:, 1:], atol=1e-4)
    assert (made.log_probability[made.agent] <= 0).all()
    assert not made.log_probability[~made.agent].any()
    # What is forbidden has probability 0: those allowed sum to 1.
    first = int(LENGTHS[0])
    logits = model(made.tokens[:1, :first])[0, -1] / 3.0
    word = jax.nn.softmax(logits[1:4])[made.tokens[0, first] - 1]
    np.testing.assert_allclose(jnp.exp(made.log_probability[0, first]), word, rtol=1e-4)


def test_tokens_of_the_tool_and_padding_get_no_gradient(model, made):
    def of_logits(shift):
        moved = lambda tokens: model(tokens) + shift
        return log_probabilities(moved, made, grammar()).total.sum()

    gradient = jax.grad(of_logits)(jnp.zeros((6, ROOM, VOCAB)))
    drawn_next = np.asarray(made.agent)[:, 1:]
    assert not gradient[:, :-1][~drawn_next].any()
    assert np.abs(gradient[:, :-1]).sum(-1)[drawn_next & (made.state[:, 1:] == 1)].all()


def test_rows_do_not_see_each_other(run, made):
    for row in (1, 4):
        stays = jnp.arange(6) == row
        others = run(
            jnp.where(stays[:, None], PROMPT, PROMPT[::-1] % 8 + 1),
            jnp.where(stays, LENGTHS, 1 + LENGTHS % 5),
        )
        assert (others.tokens != made.tokens).any(1).sum() == 5
        np.testing.assert_array_equal(others.tokens[row], made.tokens[row])
        np.testing.assert_allclose(
            others.log_probability[row], made.log_probability[row], atol=1e-5
        )


@pytest.mark.usefixtures("plain_checks")
def test_bad_input(model):
    free = free_grammar(VOCAB, END)
    with pytest.raises(ValueError, match="room: expected at least the prompt's 5 tokens, got 4"):
        rollout(model, PROMPT, LENGTHS, free, room=4)
    with pytest.raises(ValueError, match="tool: expected one, for calls=1, got None"):
        rollout(model, PROMPT, LENGTHS, free, room=9, calls=1)
    with pytest.raises(ValueError, match="grammar: expected 12 tokens, got 5"):
        rollout(model, PROMPT, LENGTHS, free_grammar(5, 4), room=9)
    with pytest.raises(ValueError, match="temperature: expected a positive number, got 0"):
        rollout(model, PROMPT, LENGTHS, free, room=9, temperature=0)
