"""A search agent: taught by demonstrations, then paid for answers and judgements in groups."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array

from experiments.judged_search.episodes import (
    Pay,
    demonstration,
    grammar,
    reward,
    room,
    scores,
    tool_of,
)
from experiments.word_models import taught, word_model
from jattn.losses.policy_gradient import aggregate, clipped_loss, group_advantages
from jattn.nn import Llama, LlamaConfig
from jattn.nn.llama import Weights
from jattn.nn.rollout import Rollout, log_probabilities, rollout
from jattn.tasks import fictional_search as task
from jattn.training import Run


class Settings(NamedTuple):
    """How an agent is paid and trained; hashable, for programs.

    Attributes:
        llama: its sizes.
        turns: searches at most.
        questions: of an update, each with so many answers:
        group: at least 2.
        learning_rate: of Adam.
        kl: weight of the divergence from the agent before.
    """

    llama: LlamaConfig
    turns: int
    questions: int
    group: int
    learning_rate: float
    kl: float


def settings_of(config) -> Settings:
    """The settings in a config."""
    llama = word_model(config, task.VOCABULARY)
    return Settings(
        llama, config.turns, config.questions, config.group, config.reward_rate, config.kl
    )


def demonstrated(run: Run, config, seed: int) -> Weights:
    """An agent that imitates demonstrations, whose judgements are guesses."""
    llama = word_model(config, task.VOCABULARY)
    sample = functools.partial(demonstration, turns=config.turns)
    return taught(run, config, llama, sample, name=f"demonstrations_{seed}", seed=seed)


def search(
    settings: Settings, weights: Weights, questions: task.Question, key: jax.Array, *, turns: int
) -> Rollout:
    """Trajectories of an agent, drawn at temperature 1."""
    model = Llama(settings.llama, weights=weights)
    tokens = questions.tokens
    lengths = jnp.full(len(tokens), task.PROMPT)
    tool = tool_of(questions.world) if turns else None
    return rollout(
        model, tokens, lengths, grammar(turns), room=room(turns), key=key, tool=tool, calls=turns
    )


def questions_of(key: jax.Array, count: int) -> task.Question:
    """So many questions, each in a world of its own."""
    return jax.vmap(task.sample_question)(jax.random.split(key, count))


@functools.partial(jax.jit, static_argnames=("settings",))
def paid(
    settings: Settings, weights: Weights, pay: Pay, keys: Array
) -> tuple[Weights, dict[str, Array]]:
    """An agent after one update a key, by GRPO, and what its trajectories were like before each."""
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.learning_rate))
    rules, before = grammar(settings.turns), weights

    def loss(now, given):
        made, advantage, reference = given
        new = log_probabilities(Llama(settings.llama, weights=now), made, rules).per_token
        old = made.log_probability[:, 1:]
        token = clipped_loss(new, old, advantage, reference=reference, kl=settings.kl).loss
        return aggregate(token, made.agent[:, 1:], "sequence")

    def update(state, key):
        now, memory = state
        of_questions, of_draws = jax.random.split(key)
        asked = questions_of(of_questions, settings.questions)
        asked = jax.tree.map(lambda leaf: jnp.repeat(leaf, settings.group, axis=0), asked)
        made = search(settings, now, asked, of_draws, turns=settings.turns)
        found = scores(made, asked, settings.turns)
        total = reward(found, pay)
        advantage = group_advantages(total.reshape(-1, settings.group)).reshape(-1, 1)
        old = Llama(settings.llama, weights=before)
        reference = log_probabilities(old, made, rules).per_token
        gradient = jax.grad(loss)(now, (made, advantage, reference))
        step, memory = adam.update(gradient, memory, now)
        judged = found.judge >= 0
        right = ((found.judge == 1) == (found.path > 0)) & judged
        log = {
            "match": found.match.mean(),
            "reward": total.mean(),
            "searches": judged.sum(1).mean(),
            "judged": right.sum() / jnp.maximum(judged.sum(), 1),
        }
        after: Any = optax.apply_updates(now, step)
        return (after, memory), log

    (trained, _), logs = lax.scan(update, (weights, adam.init(weights)), keys)
    return trained, logs


@functools.partial(jax.jit, static_argnames=("settings", "count", "turns"))
def _tested(settings, weights, key, *, count, turns):
    of_questions, of_draws = jax.random.split(key)
    asked = questions_of(of_questions, count)
    made = search(settings, weights, asked, of_draws, turns=turns)
    return asked.hops, scores(made, asked, turns)


def tested(settings: Settings, weights: Weights, key, count: int, turns: int) -> dict[str, Any]:
    """How an agent does in new worlds, by hops."""
    hops, found = jax.tree.map(
        np.asarray, _tested(settings, weights, key, count=count, turns=turns)
    )
    judged = found.judge >= 0
    right = ((found.judge == 1) == (found.path > 0)) & judged
    answered = found.match[found.faithful]
    return {
        "match": np.array([found.match[hops == number].mean() for number in (1, 2)]),
        "searches": judged.sum(1).mean(),
        "judged": right.sum() / max(judged.sum(), 1),
        "faithful": found.faithful.mean(),
        "right when faithful": answered.mean() if len(answered) else np.nan,
    }
