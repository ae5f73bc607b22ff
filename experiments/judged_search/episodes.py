"""Trajectories of a search agent: their grammar, the tool, demonstrations, and what they are worth.

A trajectory is a question, then turns of one length, `SEARCH name name relation`, two documents,
`JUDGE YES|NO`, then `ANSWER name name`. Behind NO there is no answer.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from experiments.word_models import Lesson
from jattn.nn.rollout import Grammar, Rollout, Tool
from jattn.systems import judged_search as method
from jattn.tasks import fictional_search as task

TOP, QUERY, VERDICT, REPLY = 2, 4, 2, 3
FOUND = TOP * task.DOCUMENT
TURN = QUERY + FOUND + VERDICT


def room(turns: int) -> int:
    """Tokens of the longest trajectory."""
    return task.PROMPT + turns * TURN + REPLY


def grammar(turns: int) -> Grammar:
    """So many turns at most; none = an answer at once."""
    # Of each turn: search or answer; two names; relation; call; judge; verdict; search only.
    start, name, other, relation, call, judge, verdict, again = range(8)
    each = 8
    reply = turns * each
    end = reply + 3
    allowed = np.zeros((end + 1, task.VOCABULARY), bool)
    following = np.full((end + 1, task.VOCABULARY), end)

    def may(state: int, tokens, then: int) -> None:
        allowed[state, tokens] = True
        following[state, tokens] = then

    words = slice(task.FIRST_WORD, task.VOCABULARY)
    for turn in range(turns):
        at = turn * each
        if turn:
            may(at + start, task.ANSWER, reply + 1)
        may(at + start, task.SEARCH, at + name)
        may(at + again, task.SEARCH, at + name)
        may(at + name, words, at + other)
        may(at + other, words, at + relation)
        may(at + relation, slice(task.FIRST_RELATION, task.FIRST_WORD), at + call)
        following[at + call] = at + judge
        may(at + judge, task.JUDGE, at + verdict)
        last = turn == turns - 1
        may(at + verdict, task.YES, reply if last else at + each + start)
        may(at + verdict, task.NO, end if last else at + each + again)
    may(reply, task.ANSWER, reply + 1)
    may(reply + 1, words, reply + 2)
    may(reply + 2, words, end)
    state = np.arange(end + 1)
    calls = (state < reply) & (state % each == call)
    return Grammar(*map(jnp.asarray, (allowed, following, calls, state == end)))


def tool_of(worlds: task.World) -> Tool:
    """BM25 in the world of each row; the query is what was drawn last."""

    def tool(tokens, length, _):
        row = jnp.arange(len(length))[:, None]
        query = tokens[row, jnp.maximum(length[:, None] - QUERY + 1 + jnp.arange(QUERY - 1), 0)]
        find = lambda world, words: task.search(world, words[None], TOP)[0]
        found = jax.vmap(find)(worlds, query).reshape(len(length), FOUND)
        return found, jnp.full_like(length, FOUND)

    return tool


class Scores(NamedTuple):
    """What trajectories are worth; every leaf begins with `[n]`.

    Attributes:
        match: 1 where the answer is right.
        judge: of each turn: 1 yes, 0 no, -1 none, `[n, turns]`.
        path: 1 where what was found has the next fact on the way to the answer, `[n, turns]`.
        answer: 1 where it names the answer as an object, `[n, turns]`.
        faithful: whether what was accepted holds all facts that lead to the answer.
    """

    match: Int[Array, " n"]
    judge: Int[Array, "n turns"]
    path: Float[Array, "n turns"]
    answer: Float[Array, "n turns"]
    faithful: Bool[Array, " n"]


def scores(made: Rollout, question: task.Question, turns: int) -> Scores:
    """Reads trajectories against their questions' truth."""
    count = len(made.tokens)
    body = made.tokens[:, task.PROMPT : task.PROMPT + turns * TURN].reshape(count, turns, TURN)
    verdict = body[:, :, -1]
    verdict = jnp.where(body[:, :, -VERDICT] == task.JUDGE, verdict, task.PAD)
    # A turn that is an answer, and what lies behind it, is no turn.
    searched = jnp.cumprod(body[:, :, 0] == task.SEARCH, 1) > 0
    judge = jnp.where(verdict == task.YES, 1, jnp.where(verdict == task.NO, 0, -1))
    judge = jnp.where(searched, judge, -1)
    found = body[:, :, QUERY : QUERY + FOUND].reshape(count, turns, TOP, task.DOCUMENT)
    same = found[:, :, None] == question.gold[:, None, :, None]
    at_gold = same.all(-1).any(-1)  # [n, turns, 2]

    def advance(done, now):
        has, said = now
        next_one = jnp.take_along_axis(has, jnp.minimum(done, 1)[:, None], axis=1)[:, 0]
        useful = next_one & (done < question.hops)
        return done + (useful & (said == 1)), useful

    nothing = jnp.zeros(count, jnp.int32)
    turned = (jnp.moveaxis(at_gold, 1, 0), judge.T)
    done, path = lax.scan(advance, nothing, turned)
    names = (found[..., 3:] == question.answer[:, None, None]).all(-1).any(-1)
    row = jnp.arange(count)
    said = jnp.stack([made.tokens[row, made.length - 2], made.tokens[row, made.length - 1]], 1)
    replied = made.ended & (made.tokens[row, made.length - REPLY] == task.ANSWER)
    match = replied & (said == question.answer).all(1)
    number = lambda of: jnp.where(searched, of, False).astype(jnp.float32)
    faithful = done == question.hops
    return Scores(match.astype(jnp.int32), judge, number(path.T), number(names), faithful)


class Pay(NamedTuple):
    """How a trajectory is paid; numbers, so that all ways share a program.

    Attributes:
        summed: weight of the sum of the judgements' rewards.
        meaned: weight of their mean.
        path: weight of utility `path`; the rest is that of `answer`.
    """

    summed: Float[Array, ""] | float
    meaned: Float[Array, ""] | float
    path: Float[Array, ""] | float = 1.0


def reward(found: Scores, pay: Pay) -> Float[Array, " n"]:
    """Exact match, and judgements as `pay` has them."""
    utility = pay.path * found.path + (1 - pay.path) * found.answer
    step = method.judge_rewards(found.judge, utility)
    judged = found.judge >= 0
    count = judged.sum(1)
    how = lambda name: method.trajectory_reward(step, found.match, count, judged, how=name)
    match = found.match.astype(jnp.float32)
    total = match + pay.summed * (how("sum") - match) + pay.meaned * (how("mean") - match)
    return total


def demonstration(key: jax.Array, turns: int) -> Lesson:
    """A trajectory to imitate: right facts are asked for in most turns, judgements are guessed.

    An accepted document on the way to the answer is a step; behind the last one the answer follows.
    Where turns run out, the object of the last document is the answer.
    """
    of_question, of_turns = jax.random.split(key)
    question = task.sample_question(of_question)
    world = question.world
    row = jnp.zeros(room(turns), jnp.int32).at[: task.PROMPT].set(question.tokens)
    drawn = row > 0
    done, over = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    for turn in range(turns):
        of_noise, of_word, of_relation, of_verdict = jax.random.split(
            jax.random.fold_in(of_turns, turn), 4
        )
        at = task.PROMPT + turn * TURN
        query = question.gold[jnp.minimum(done, question.hops - 1), :3]
        noise = jax.random.choice(of_noise, 3, p=jnp.array([0.8, 0.1, 0.1]))
        word = world.names[jax.random.randint(of_word, (), 0, task.ENTITIES), 0]
        relation = jax.random.randint(of_relation, (), task.FIRST_RELATION, task.FIRST_WORD)
        query = jnp.where((jnp.arange(3) == 0) & (noise == 1), word, query)
        query = jnp.where((jnp.arange(3) == 2) & (noise == 2), relation, query)
        found = task.search(world, query[None], TOP)[0]
        useful = task.holds(found, question.gold[jnp.minimum(done, question.hops - 1)])
        yes = jax.random.bernoulli(of_verdict)
        verdict = jnp.stack([jnp.array(task.JUDGE), jnp.where(yes, task.YES, task.NO)])
        words = jnp.concatenate([jnp.array([task.SEARCH]), query, found.ravel(), verdict])
        own = jnp.array([True] * QUERY + [False] * FOUND + [True] * VERDICT)
        row = row.at[at : at + TURN].set(jnp.where(over, row[at : at + TURN], words))
        drawn = drawn.at[at : at + TURN].set(jnp.where(over, drawn[at : at + TURN], own))
        done = done + (useful & yes & ~over)
        guess = (turn == turns - 1) & yes
        stop = ~over & ((yes & useful & (done == question.hops)) | guess)
        says = jnp.where(done == question.hops, question.answer, found[0, 3:])
        reply = jnp.concatenate([jnp.array([task.ANSWER]), says])
        end = at + TURN
        row = row.at[end : end + REPLY].set(jnp.where(stop, reply, row[end : end + REPLY]))
        drawn = drawn.at[end : end + REPLY].set(stop | drawn[end : end + REPLY])
        over = over | stop
    return Lesson(row, drawn.at[: task.PROMPT].set(False))
