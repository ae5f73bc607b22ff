"""An agent of a few numbers in a search of probabilities: what judging pays, without any text.

There are two hops and four turns. While steps are missing, a good query finds a useful thing with
probability 0.7, a bad one with 0.2; with none missing nothing is useful. A cue says whether it is,
and is right with probability 0.85. What is accepted and useful is a step; what is accepted and is
not spoils the path; what is rejected changes nothing. Behind a yes the agent may answer, and behind
the last turn it must, right iff there were two steps and the path is whole.

What the end of turns means, that a whole path makes everything useless, and that the agent judges
by the cue alone were chosen such that the sum of judgements is farmed as in an independent program.
Where a last no leaves the agent without an answer, and things stay useful, it is not (2.9
searches); where it may judge by what it has accepted, too, it farms by saying no, and is right as
often (0.74).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array

from experiments.judged_search import figures
from experiments.judged_search.episodes import Pay
from jattn.losses.policy_gradient import aggregate, clipped_loss, group_advantages
from jattn.systems import judged_search as method
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2510.00568", "ReSeek: judged search")
HOPS, TURNS, USEFUL, CUE = 2, 4, (0.2, 0.7), 0.85
PAYS = {
    "answer only": Pay(0.0, 0.0),
    "sum": Pay(1.0, 0.0),
    "mean": Pay(0.0, 1.0),
    "sum, of answers": Pay(1.0, 0.0, 0.0),
}
EARLY = 50


class Policy(NamedTuple):
    """Logits of the second choice of each pair, by how many noticed steps there are (0 to 4).

    Attributes:
        query: good rather than bad, `[5]`.
        judge: yes rather than no, by the cue alone, `[2]`.
        answer: answer rather than search on, `[5]`.
    """

    query: Array
    judge: Array
    answer: Array


class Episode(NamedTuple):
    """Trajectories; every leaf begins with `[n]`.

    Attributes:
        log_probability: of each choice, 0 where there is none, `[n, turns, 3]`.
        chosen: which choices there are, `[n, turns, 3]`.
        judge: 1 yes, 0 no, -1 none, `[n, turns]`.
        path, answer: utilities of what was found, `[n, turns]`.
        match: whether the answer is right.
    """

    log_probability: Array
    chosen: Array
    judge: Array
    path: Array
    answer: Array
    match: Array


class Noise(NamedTuple):
    """Uniform numbers that decide everything, `[n, turns]` each: choices, finds, cues."""

    choice: Array  # [n, turns, 3]
    find: Array
    cue: Array


def play(policy: Policy, noise: Noise) -> Episode:
    """Trajectories of a policy, whose log-probabilities can be differentiated."""

    def choose(logit, u):
        second = u < lax.stop_gradient(jax.nn.sigmoid(logit))
        return second, jax.nn.log_sigmoid(jnp.where(second, logit, -logit))

    def turn(carry, now, last):
        accepted, steps, spoiled, over, match = carry
        u, find, cue = now
        good, of_query = choose(policy.query[accepted], u[:, 0])
        useful = (find < jnp.asarray(USEFUL)[good.astype(int)]) & (steps < HOPS)
        seen = jnp.where(cue < CUE, useful, ~useful).astype(int)
        yes, of_judge = choose(policy.judge[seen], u[:, 1])
        last_hop = steps == HOPS - 1
        live = ~over
        path, answer = useful & live, useful & last_hop & live
        steps = steps + (yes & useful & live)
        spoiled = spoiled | (yes & ~useful & live)
        accepted = accepted + (yes & live)
        stop, of_answer = choose(policy.answer[accepted], u[:, 2])
        ends = live & ((yes & stop) | last)
        match = match | (ends & (steps >= HOPS) & ~spoiled)
        choices = jnp.stack([live, live, live & yes & (not last)], 1)
        logs = jnp.where(choices, jnp.stack([of_query, of_judge, of_answer], 1), 0.0)
        judge = jnp.where(live, yes.astype(int), -1)
        return (accepted, steps, spoiled, over | ends, match), (logs, choices, judge, path, answer)

    zero = jnp.zeros(len(noise.find), jnp.int32)
    carry, rows = (zero, zero, zero > 0, zero > 0, zero > 0), []
    for index in range(TURNS):
        now = (noise.choice[:, index], noise.find[:, index], noise.cue[:, index])
        carry, row = turn(carry, now, index == TURNS - 1)
        rows.append(row)
    logs, chosen, judge, path, answer = (jnp.stack(x, 1) for x in zip(*rows, strict=True))
    return Episode(logs, chosen, judge, path, answer, carry[-1])


def worth(found: Episode, pay: Pay) -> Array:
    """What trajectories are paid."""
    utility = pay.path * found.path + (1 - pay.path) * found.answer
    step = method.judge_rewards(found.judge, utility)
    judged = found.judge >= 0
    mean = step.sum(1) / jnp.maximum(judged.sum(1), 1)
    return found.match + pay.summed * step.sum(1) + pay.meaned * mean


def noise_of(key: jax.Array, count: int) -> Noise:
    """Noise of so many trajectories."""
    keys = jax.random.split(key, 3)
    draw = lambda k, *more: jax.random.uniform(k, (count, TURNS, *more))
    return Noise(draw(keys[0], 3), draw(keys[1]), draw(keys[2]))


@jax.jit
def _learned(pay: Pay, keys: Array) -> tuple[Policy, Array]:
    """A policy after one update a key, of 64 groups of 5; exact match of each update."""
    adam = optax.adam(0.03)
    policy = Policy(jnp.zeros(5), jnp.zeros(2), jnp.zeros(5))

    def loss(policy, noise):
        found = play(policy, noise)
        advantage = group_advantages(worth(found, pay).reshape(-1, 5)).reshape(-1, 1)
        logs = found.log_probability.reshape(len(advantage), -1)
        counts = found.chosen.reshape(len(advantage), -1)
        token = clipped_loss(logs, logs, advantage).loss
        return aggregate(token, counts, "token"), found.match.mean()

    def update(state, key):
        policy, memory = state
        gradient, match = jax.grad(loss, has_aux=True)(policy, noise_of(key, 320))
        step, memory = adam.update(gradient, memory)
        after: Any = optax.apply_updates(policy, step)
        return (after, memory), match

    (trained, _), matches = lax.scan(update, (policy, adam.init(policy)), keys)
    return trained, matches


def measured(config) -> dict[str, np.ndarray]:
    """Of each way to pay and seed: match, searches and right judgements at the end; and early."""
    rows = []
    for number, pay in enumerate(PAYS.values()):
        for seed in range(config.tabular_seeds):
            key = jax.random.fold_in(jax.random.key(config.seed + seed), number)
            policy, matches = _learned(
                jax.tree.map(jnp.float32, pay), jax.random.split(key, config.tabular_updates)
            )
            found = play(policy, noise_of(jax.random.fold_in(key, 1), 20_000))
            judged = found.judge >= 0
            right = ((found.judge == 1) == found.path) & judged
            rows.append([
                found.match.mean(), judged.sum(1).mean(), right.sum() / judged.sum(),
                matches[:EARLY].mean(),
            ])  # fmt: skip
    table = np.array(rows, float).reshape(len(PAYS), config.tabular_seeds, 4)
    return {"table": table}


def tabular(run: Run, config) -> list[Claim]:
    """Pays the agent in four ways."""
    table = run.cached("tabular", lambda: measured(config))["table"]
    figures.tabular(run, table, list(PAYS))
    of = dict(zip(PAYS, table, strict=True))
    sparse, summed, mean, late = (of[name] for name in PAYS)
    reference = dict(kind="reference", because="an independent program's number")

    def claim(id, statement, predicted, values, relation, tolerance=None, **more):
        measured = float(np.mean(values))
        values_of = (predicted, measured, relation, tolerance)
        return PAPER.claim(f"tabular-{id}", statement, *values_of, seeds=values, **more)

    return [
        claim("answer", "Paid for the answer alone, an agent of a few numbers is right as often as "
              "the best policy there is.", 0.747, sparse[:, 0], "~=", 0.03, **reference),
        claim("searches", "And searches as often.", 2.98, sparse[:, 1], "~=", 0.15, **reference),
        claim("farming", "With the sum of judgements on top, the paper's reward, it searches till "
              "the last turn: searches of four.", 3.8, summed[:, 1], ">=",
              because="an independent program had 3.94", kind="reference"),
        claim("farming-judges", "and judges as well as the cue allows.", 0.85, summed[:, 2], "~=",
              0.03, **reference),
        claim("farming-cost", "but is right less often.", 0.625, summed[:, 0], "~=", 0.03,
              **reference),
        claim("mean", "With their mean it is right as often as without.", 0.747, mean[:, 0], "~=",
              0.03, **reference),
        claim("mean-early", "and sooner: gain over the first 50 updates.", 0.0,
              mean[:, 3] - sparse[:, 3], ">", because="an independent program had 0.065",
              kind="reference"),
        claim("utility", "If only what holds the answer is useful, the first of two hops is "
              "punished, and it is seldom right.", 0.2, late[:, 0], "<=",
              because="an independent program had 0.06", kind="reference"),
    ]  # fmt: skip
