"""Residual networks with and without attention over channels, trained on an oscillator."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.functional import optimizer
from jattn.mechanisms.channel.step_attention import step_attention, step_attention_init
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.tasks.van_der_pol import SCALE, sample_starts, van_der_pol_flow
from jattn.theory.step_sizes import stiffness_index
from jattn.training import Run, fit

STEPNET = "StepNet"


class Network(NamedTuple):
    """A kind of residual network.

    Attributes:
        inputs: of attention: `"all"` of StepNet's, or the `"change"` alone.
        attends: which blocks have it; the others take steps of 1.
    """

    inputs: str
    attends: tuple[bool, ...]


class Passage(NamedTuple):
    """What came of examples on their way through the blocks.

    Attributes:
        out: the answer, `[b, 2]`.
        states: before each block, `[n, b, c]`.
        changes: f of each block, `[n, b, c]`.
        steps: the step sizes, `[n, b, c]`.
    """

    out: jax.Array
    states: jax.Array
    changes: jax.Array
    steps: jax.Array


def init(config, key: jax.Array) -> dict[str, Any]:
    """Parameters; those of attention are there in every block, whether it attends or not."""
    of_ends, of_blocks = jax.random.split(key)
    first, last = jax.random.split(of_ends)

    def block(key):
        up, down, own = jax.random.split(key, 3)
        return {
            "value": linear_init(up, config.channels, config.hidden),
            "bias": jnp.zeros(config.hidden),
            "output": linear_init(down, config.hidden, config.channels),
            "step": step_attention_init(own, config.channels, config.reduction),
        }

    return {
        "first": linear_init(first, 2, config.channels),
        "blocks": jax.vmap(block)(jax.random.split(of_blocks, config.blocks)),
        "last": linear_init(last, config.channels, 2),
    }


def apply(network: Network, params: dict[str, Any], starts: jax.Array) -> Passage:
    """The network on states of the oscillator, `[b, 2]`."""
    x = linear(starts, params["first"])

    def block(carry, given):
        x, previous, is_first = carry
        own, attends = given
        change = linear(jnp.tanh(linear(x, own["value"]) + own["bias"]), own["output"])
        before = jnp.where(is_first, change, previous)
        seen = x if network.inputs == "all" else jnp.zeros_like(x)
        before = before if network.inputs == "all" else change  # their difference is 0
        step = jnp.where(attends, step_attention(own["step"], change, seen, before), 1.0)
        return (x + step * change, change, False), (x, change, step)

    given = (params["blocks"], jnp.asarray(network.attends))
    (end, _, _), (states, changes, steps) = lax.scan(block, (x, x, True), given)
    return Passage(linear(end, params["last"]), states, changes, steps)


def trained(run: Run, config, name: str, network: Network) -> dict[str, np.ndarray]:
    """Results of each seed.

    `loss` `[seeds]`: mean squared error on test examples. `stiffness` and `sizes` `[seeds, n - 1]`:
    medians over test examples, of the index and of the mean step size of each block but the last.
    `correlation` `[seeds]`: of ranks of mean step sizes and 1 / index, over blocks and examples,
    and `of_blocks` over the blocks' medians.
    """
    of_starts, of_tests = jax.random.split(jax.random.key(config.seed + 1_000_000))

    @jax.jit
    def drawn(key, count: Any):
        starts = jax.vmap(sample_starts)(jax.random.split(key, len(count)))
        return starts, van_der_pol_flow(starts, config.mu, config.time)

    known = drawn(of_starts, np.zeros(config.examples))
    test = drawn(of_tests, np.zeros(config.test_examples))

    def sample(key):
        index = jax.random.randint(key, (), 0, config.examples)
        return known[0][index] / SCALE, known[1][index] / SCALE

    def loss(params, batch):
        return jnp.mean((apply(network, params, batch[0]).out - batch[1]) ** 2)

    label_of_fit = name.replace(" ", "_")
    params = fit(
        lambda key: init(config, key),
        loss,
        sample,
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=label_of_fit,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(config.steps // 20, 1),
    ).params

    def tested():
        scaled = tuple(array / SCALE for array in test)

        @jax.jit
        def measure(params):
            passed = apply(network, params, scaled[0])
            index = stiffness_index(passed.states, passed.changes)
            sizes = passed.steps[:-1].mean(-1)
            return {
                "loss": jnp.mean((passed.out - scaled[1]) ** 2),
                "stiffness": jnp.median(index, axis=1),
                "sizes": jnp.median(sizes, axis=1),
                "correlation": rank_correlation(sizes.ravel(), 1 / index.ravel()),
            }

        measured = lax.map(measure, params)
        of_blocks = jax.vmap(rank_correlation)(measured["sizes"], 1 / measured["stiffness"])
        return jax.tree.map(np.asarray, measured | {"of_blocks": of_blocks})

    return run.cached(label_of_fit, tested)


def stiffest(stiffness: np.ndarray, count: int) -> tuple[bool, ...]:
    """Which blocks are the stiffest on the mean over seeds; the last, of which none is known, not.

    Args:
        stiffness: `[seeds, n - 1]`.
        count: how many.
    """
    mean = np.append(np.mean(stiffness, axis=0), -np.inf)
    chosen = set(np.argsort(-mean)[:count].tolist())
    return tuple(block in chosen for block in range(len(mean)))


def rank_correlation(first: jax.Array, second: jax.Array) -> jax.Array:
    """Spearman's, of two rows without ties; 0 where one is constant."""
    ranks = [jnp.argsort(jnp.argsort(row)).astype(jnp.float32) for row in (first, second)]
    centred = [row - row.mean() for row in ranks]
    found = (centred[0] * centred[1]).sum() / jnp.sqrt(
        (centred[0] ** 2).sum() * (centred[1] ** 2).sum()
    )
    constant = (jnp.ptp(first) == 0) | (jnp.ptp(second) == 0)
    return jnp.where(constant, 0.0, found)
