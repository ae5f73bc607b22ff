"""Rolling out a policy that calls tools: sequences of prompts, drawn tokens and observations.

Rows of a batch stand at places of their own in their caches. Each draws tokens until a grammar says
that a tool is called, or that it ends; then the tool sees all rows, and what it answers is read at
once, behind what each row has. Tokens that the grammar forbids have probability 0, when they are
drawn and in every loss that asks for their log-probability.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend
from jattn.checks import check_array, check_count, check_number, check_shape
from jattn.losses import SequenceLogProbability, sequence_log_probability
from jattn.nn.llama import Llama, embedded, llama_layer, read_out
from jattn.nn.taps import Taps


class Grammar(NamedTuple):
    """A finite automaton over tokens; state 0 is the first.

    Attributes:
        allowed: tokens that may be drawn in each state, `[states, v]`.
        following: the state behind a token, `[states, v]`.
        calls: states in which a tool is called before the next token, `[states]`.
        ends: states in which a row is done, `[states]`.
    """

    allowed: Bool[Array, "states v"]
    following: Int[Array, "states v"]
    calls: Bool[Array, " states"]
    ends: Bool[Array, " states"]


# What each row has so far, how much of it, and its state, to what it is told and how much of it.
Tool = Callable[
    [Int[Array, "b s"], Int[Array, " b"], Int[Array, " b"]],
    tuple[Int[Array, "b o"], Int[Array, " b"]],
]


class RowCaches(NamedTuple):
    """Keys and values of rows of different lengths.

    Attributes:
        key, value: `[L, b, s, g, d]`.
        length: how many tokens of each row there are; entries behind them are hidden.
    """

    key: Float[Array, "L b s g d"]
    value: Float[Array, "L b s g d"]
    length: Int[Array, " b"]


class Rollout(NamedTuple):
    """What rows became, each from its first token on.

    Attributes:
        tokens: prompts, drawn tokens and observations, `[b, s]`; 0 behind the end.
        length: of each row.
        agent: which tokens were drawn.
        state: the grammar's, in which each of them was.
        log_probability: of each of them when it was drawn; 0 elsewhere.
        ended: whether the grammar said so; False = no room, or too many calls.
    """

    tokens: Int[Array, "b s"]
    length: Int[Array, " b"]
    agent: Bool[Array, "b s"]
    state: Int[Array, "b s"]
    log_probability: Float[Array, "b s"]
    ended: Bool[Array, " b"]


def row_caches(model: Llama, batch: int, room: int) -> RowCaches:
    """Empty caches for rows of up to `room` tokens."""
    key, value, _ = model.init_state(batch, room)
    return RowCaches(key, value, jnp.zeros(batch, jnp.int32))


def extend(
    model: Llama,
    tokens: Int[Array, "b t"],
    caches: RowCaches,
    counts: Int[Array, " b"],
) -> tuple[Float[Array, "b vocab"], RowCaches]:
    """Reads more tokens of each row, behind those that it has.

    Args:
        model: a decoder.
        tokens: `[b, t]`.
        caches: of the rows; there must be room.
        counts: how many of the t tokens are real, 0 to t; the others are padding behind them.

    Returns:
        Logits after each row's last real token, which mean nothing where there is none, and caches.

    Example:
        >>> from flax import nnx
        >>> from jattn.nn import LlamaConfig
        >>> config = LlamaConfig(vocab_size=9, dim=8, layers=1, heads=2, kv_heads=1, hidden=8)
        >>> model = Llama(config, rngs=nnx.Rngs(0))
        >>> tokens = jnp.zeros((2, 3), int)
        >>> _, caches = extend(model, tokens, row_caches(model, 2, 8), jnp.array([3, 1]))
        >>> extend(model, tokens, caches, jnp.array([1, 3]))[1].length.tolist()
        [4, 4]
    """
    config, weights = model.config, model.arrays()
    batch, given = tokens.shape
    room = caches.key.shape[2]
    row, index = jnp.arange(batch)[:, None], jnp.arange(given)
    positions = caches.length[:, None] + index
    # What is not real is put nowhere.
    at = jnp.where(index < counts[:, None], positions, room)
    visible = (jnp.arange(room) <= positions[..., None])[:, None]

    def body(x, of_layer):
        layer, keys, values = of_layer

        def mix(query, key, value):
            put = lambda cache, new: cache.at[row, at].set(new.astype(cache.dtype), mode="drop")
            now = put(keys, key), put(values, value)
            return attend(query, *now, mask=visible), now

        return llama_layer(config, layer, x, positions, mix, Taps())

    layers = (weights["layers"], caches.key, caches.value)
    x, (key, value) = lax.scan(body, embedded(weights, tokens), layers)
    last = x[jnp.arange(batch), jnp.maximum(counts - 1, 0)]
    return read_out(config, weights, last), RowCaches(key, value, caches.length + counts)


class _Rows(NamedTuple):
    """What a roll-out carries from token to token."""

    rollout: Rollout
    caches: RowCaches
    logits: Float[Array, "b vocab"]
    state: Int[Array, " b"]  # of the grammar
    stuck: Bool[Array, " b"]  # without room
    drawn: Int[Array, ""]  # tokens, for their keys


def rollout(
    model: Llama,
    prompt: Int[Array, "b t"],
    lengths: Int[Array, " b"],
    grammar: Grammar,
    *,
    room: int,
    key: jax.Array | None = None,
    temperature: float = 1.0,
    tool: Tool | None = None,
    calls: int = 0,
) -> Rollout:
    """Draws tokens of each row until the grammar ends it; see the module. It can be traced.

    Args:
        model: the policy.
        prompt: tokens, padded behind, `[b, t]`.
        lengths: of the prompts.
        grammar: which tokens may come, when the tool is called and when a row ends.
        room: tokens of the longest row; one that needs more stops as it is.
        key: draws tokens; None takes the likeliest that is allowed.
        temperature: of the draws, above 0.
        tool: what is called, `(tokens, length, state) -> (observation [b, o], its length [b])`. It
            is called on all rows, and only those in a state that calls are told what it found.
        calls: how often it is at most; a row that needs more stops as it is.

    Returns:
        A `Rollout`. Log-probabilities are those of `log_probabilities`.

    Raises:
        ValueError: shapes that do not fit, no room for a prompt, or calls without a tool.

    Example:
        >>> from flax import nnx
        >>> from jattn.nn import LlamaConfig
        >>> config = LlamaConfig(vocab_size=3, dim=8, layers=1, heads=2, kv_heads=1, hidden=8)
        >>> model = Llama(config, rngs=nnx.Rngs(0))
        >>> one = jnp.array([[False, True, False], [False, False, True], [False] * 3])
        >>> to = jnp.array([[0, 1, 0], [0, 0, 2], [2, 2, 2]])  # token 1, then token 2, then the end
        >>> grammar = Grammar(one, to, jnp.zeros(3, bool), jnp.array([False, False, True]))
        >>> rollout(model, jnp.array([[1], [2]]), jnp.ones(2, int), grammar, room=4).tokens.tolist()
        [[1, 1, 2, 0], [2, 1, 2, 0]]
    """
    sizes: dict[str, int] = {}
    check_array("prompt", prompt, "integer")
    check_shape("prompt", prompt, "b t", sizes)
    check_shape("lengths", lengths, "b", sizes)
    check_shape("grammar.allowed", grammar.allowed, "states v", sizes)
    check_count("room", room)
    check_count("calls", calls, least=0)
    check_number("temperature", temperature, above=0)
    if sizes["v"] != model.vocab_size:
        raise ValueError(f"grammar: expected {model.vocab_size} tokens, got {sizes['v']}")
    if room < sizes["t"]:
        raise ValueError(f"room: expected at least the prompt's {sizes['t']} tokens, got {room}")
    if calls and tool is None:
        raise ValueError(f"tool: expected one, for calls={calls}, got None")
    batch, given = prompt.shape
    row, none = jnp.arange(batch), jnp.zeros((batch, room), jnp.int32)
    lengths = lengths.astype(jnp.int32)
    real = jnp.arange(given) < lengths[:, None]
    empty = Rollout(
        none.at[:, :given].set(jnp.where(real, prompt, 0)), lengths, none > 0, none, none * 0.0,
        jnp.zeros(batch, bool),
    )  # fmt: skip

    def draws(rows: _Rows):
        """Rows that draw a token next."""
        return ~(grammar.calls | grammar.ends)[rows.state] & ~rows.stuck

    def draw(rows: _Rows) -> _Rows:
        made, active = rows.rollout, draws(rows)
        active = active & (made.length < room)
        logits = jnp.where(grammar.allowed[rows.state], rows.logits / temperature, -jnp.inf)
        if key is None:
            token = logits.argmax(-1)
        else:
            token = jax.random.categorical(jax.random.fold_in(key, rows.drawn), logits)
        token = token.astype(jnp.int32)
        logs = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=1)[:, 0]
        at = jnp.where(active, made.length, room)
        put = lambda array, new: array.at[row, at].set(new, mode="drop")
        made = made._replace(
            tokens=put(made.tokens, token), length=made.length + active,
            agent=put(made.agent, True), state=put(made.state, rows.state),
            log_probability=put(made.log_probability, logs),
        )  # fmt: skip
        new, caches = extend(model, token[:, None], rows.caches, active.astype(jnp.int32))
        state = jnp.where(active, grammar.following[rows.state, token], rows.state)
        logits = jnp.where(active[:, None], new, rows.logits)
        stuck = rows.stuck | (draws(rows) & ~active)
        return _Rows(made, caches, logits, state, stuck, rows.drawn + 1)

    def decode(rows: _Rows) -> _Rows:
        return lax.while_loop(lambda now: draws(now).any(), draw, rows)

    def call(rows: _Rows, _) -> tuple[_Rows, None]:
        assert tool is not None
        rows = decode(rows)
        made = rows.rollout
        told, counts = tool(made.tokens, made.length, rows.state)
        wants = grammar.calls[rows.state] & ~rows.stuck
        fits = made.length + counts <= room
        counts = jnp.where(wants & fits, counts, 0).astype(jnp.int32)
        index = jnp.arange(told.shape[1])
        at = jnp.where(index < counts[:, None], made.length[:, None] + index, room)
        tokens = made.tokens.at[row[:, None], at].set(told.astype(jnp.int32), mode="drop")
        made = made._replace(tokens=tokens, length=made.length + counts)
        new, caches = extend(model, told, rows.caches, counts)
        logits = jnp.where((counts > 0)[:, None], new, rows.logits)
        # Behind an observation the state's own successor is next, whatever was read.
        state = jnp.where(wants & fits, grammar.following[rows.state, 0], rows.state)
        return _Rows(made, caches, logits, state, rows.stuck | (wants & ~fits), rows.drawn), None

    logits, caches = extend(model, prompt, row_caches(model, batch, room), lengths)
    no = jnp.zeros(batch, bool)
    rows = _Rows(empty, caches, logits, jnp.zeros(batch, jnp.int32), no, jnp.zeros((), jnp.int32))
    if calls:
        rows = lax.scan(call, rows, None, length=calls)[0]
    rows = decode(rows)
    return rows.rollout._replace(ended=grammar.ends[rows.state])


def log_probabilities(
    model: Any, made: Rollout, grammar: Grammar, *, temperature: float = 1.0
) -> SequenceLogProbability:
    """Log-probabilities of drawn tokens under a policy, in one pass; see `rollout`.

    Args:
        model: the policy, of the same vocabulary.
        made: a roll-out of it, or of another one.
        grammar: that under which the tokens were drawn.
        temperature: that at which they were.

    Returns:
        A `SequenceLogProbability`, of tokens from the second on.
    """
    logits = model(made.tokens)[:, :-1]
    may = grammar.allowed[made.state[:, 1:]] | ~made.agent[:, 1:, None]
    logits = jnp.where(may, logits, -jnp.inf)
    last = jnp.zeros_like(logits[:, :1])  # predicts nothing
    whole = jnp.concatenate([logits, last], axis=1)
    return sequence_log_probability(whole, made.tokens, made.agent, temperature=temperature)


def free_grammar(vocabulary: int, end: int) -> Grammar:
    """The grammar that allows every token, and ends behind one.

    Example:
        >>> free_grammar(3, 2).following.tolist()
        [[0, 0, 1], [1, 1, 1]]
    """
    token = jnp.arange(vocabulary)
    following = jnp.stack([jnp.where(token == end, 1, 0), jnp.ones_like(token)])
    ends = jnp.array([False, True])
    return Grammar(jnp.ones((2, vocabulary), bool), following, ~ends & False, ends)
