"""Thoughts of two variables, picked by a bottleneck and taught by a verifier."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jattn.mechanisms.memory.consciousness_prior import select_bottleneck, verifier_loss
from jattn.tasks.factor_graph import factor_graph, pairs_of
from jattn.training import Run, fit

# The first variable given; given, and the verifier misled; both variables picked.
MODELS = ("verified", "control", "both")
LOOK_UP = 5.0  # scale of the verifier's reading: nine tenths are of the variable asked for
LOGS, THOUGHTS = 20, 64


class Example(NamedTuple):
    """Variables at two moments, what is thought of first, and noise of both picks."""

    now: jax.Array
    next: jax.Array
    first: jax.Array
    noise: jax.Array


def causes_of(config) -> np.ndarray:
    """Which cause each effect has: the graph that is to be found, the same for all seeds."""
    return np.random.default_rng(config.seed).permutation(config.causes)


def sampler(config, model: str):
    """Draws examples; the control's second moment follows another first one."""
    draw = factor_graph(causes_of(config))
    count = 2 * config.causes

    def sample(key):
        of_now, of_other, of_first, of_noise = jax.random.split(key, 4)
        now, after = draw(of_now)
        if model == "control":
            after = draw(of_other).next
        first = jax.random.randint(of_first, (), 0, count)
        return Example(now, after, first, jax.random.gumbel(of_noise, (2, count)))

    return sample


def init(config, key: jax.Array) -> dict[str, jax.Array]:
    """What is picked first, `[n]`, and beside what, `[n, n]`: logits of the factor graph."""
    count = 2 * config.causes
    return {
        "first": jnp.zeros(count),
        "second": 0.1 * jax.random.normal(key, (count, count)),
    }


def think(config, model: str, params: Any, example: Example, temperature: float):
    """Keys and values of the thought of one example, and which two variables it is of.

    The elements' keys say which variable they are, values are one-hot. Each of the two variables is
    expected, at the next moment, to be what the other one is now: of one of them that is true.
    """
    count = 2 * config.causes
    keys, values = jnp.eye(count), jax.nn.one_hot(example.now, 2)
    root = count**0.5  # by which `select_bottleneck` divides

    def pick(logits, noise, real):
        thought = select_bottleneck(keys, values, root * logits, 1, noise=noise, real=real)
        return thought.index[0], thought.weights

    everything = jnp.ones(count, bool)
    if model == "both":
        first, weights = pick(params["first"], example.noise[0], everything)
    else:
        first = example.first
        weights = jax.nn.one_hot(first, count)
    second, others = pick(
        weights @ params["second"],
        temperature * example.noise[1],
        everything & (jnp.arange(count) != first),
    )
    # What is expected at the one is the other's value; gradients go to the weights of both.
    return (
        jnp.stack([others @ keys, weights @ keys]),
        jnp.stack([weights @ values, others @ values]),
        jnp.stack([first, second]),
    )


def trained(run: Run, config, model: str) -> dict[str, np.ndarray]:
    """Precision of the pairs in training `[logs, seeds]`, and the graph at the end."""
    sample = sampler(config, model)
    count = 2 * config.causes
    partner = jnp.asarray(pairs_of(causes_of(config)))
    test = jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), THOUGHTS))

    def thoughts(params, batch, temperature=config.temperature):
        return jax.vmap(lambda e: think(config, model, params, e, temperature))(batch)

    def loss(params, batch):
        keys, values, _ = thoughts(params, batch)
        state = jnp.broadcast_to(jnp.eye(count), (len(batch.now), count, count))
        return verifier_loss(state, jax.nn.one_hot(batch.next, 2), keys, values, scale=LOOK_UP)

    def record(params):
        _, _, picked = thoughts(params, test, 0.0)  # the best second one, without noise
        right = partner[picked[:, 0]] == picked[:, 1]
        there = jnp.zeros((count, count), bool).at[picked.min(1), picked.max(1)].set(right)
        graph = jax.nn.softmax(params["second"], where=~jnp.eye(count, dtype=bool))
        return {"precision": right.mean(), "distinct": there.sum(), "graph": graph}

    warm_up = max(1, config.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warm_up, config.steps)
    return fit(
        lambda key: init(config, key),
        loss,
        sample,
        optax.adam(rate),
        run=run,
        name=model,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(1, config.steps // LOGS),
        record=record,
    ).history
