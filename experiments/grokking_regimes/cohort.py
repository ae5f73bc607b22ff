"""Training a cohort: every weight decay, operation and size of the training set is one arm.

Arms and seeds are axes of one program. The arms of a seed start from the same parameters and see
the same draws, so that what differs between them is what they are named by.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.arms import adamw, along, copies
from experiments.grokking_regimes import networks
from experiments.grokking_regimes.networks import diagnostics
from jattn.tasks.modular_arithmetic import UNDEFINED, answers, shuffled, tokens
from jattn.theory.grokking import first_time
from jattn.training import Paper, Run, fit

PAPER = Paper("arXiv 2605.20441", "Weight decay regimes in grokking transformers")


class Arm(NamedTuple):
    """What one network of a seed is trained with.

    Attributes:
        decay: decoupled weight decay, lambda.
        operation: see `jattn.tasks.modular_arithmetic.answers`.
        fraction: of all problems, to train on.
        reset_at: step before which some heads are drawn anew, or -1.
        clip_at: step from which the norm of all parameters is kept at a share of what it is then,
            or -1.
    """

    decay: float
    operation: Any = "add"
    fraction: float = 0.5
    reset_at: int = -1
    clip_at: int = -1


class Cohort(NamedTuple):
    """What training noted; every entry of `noted` is `[times, seeds, arms]`.

    Attributes:
        arms: what the last axis is.
        steps: the first axis.
        noted: `train` and `test` (accuracies), `norm`; and of attention maps
            `similarity`, `entropy_std`, `participation` and `spectral_gap`.
    """

    arms: tuple[Arm, ...]
    steps: np.ndarray
    noted: dict[str, np.ndarray]

    @property
    def grok_step(self) -> np.ndarray:
        """The first step that was looked at with 99 % right of the test, `[seeds, arms]`."""
        return first_time(self.noted["test"], self.steps.astype(float))

    def at(self, **fields: Any) -> int:
        """The index of the arm with these fields, the others as by default."""
        return self.arms.index(Arm(**fields))

    def peak(self, arm: int) -> np.ndarray:
        """The largest deviation between entropies of heads in training, `[seeds]`."""
        return self.noted["entropy_std"][1:, :, arm].max(0)


def train(
    run: Run,
    config,
    name: str,
    arms: Sequence[Arm],
    *,
    net: str = networks.ATTENTION,
    heads: int | None = None,
    steps: int | None = None,
    seeds: int | None = None,
) -> Cohort:
    """Trains a network of each seed and arm.

    Args:
        run, config: as for a study.
        name: of the fit.
        arms: what to train.
        net: the network, a mixer of the zoo or `"mlp"`.
        heads: of the mixer; default the config's.
        steps: how many; default the config's.
        seeds: how many; default the config's.
    """
    network = networks.network(config, net, config.heads if heads is None else heads)
    tables = jnp.stack([answers(arm.operation, config.modulus) for arm in arms])
    share = jnp.array([arm.fraction for arm in arms])
    sizes = (share * (tables != UNDEFINED).sum(1)).astype(int)

    def init(key):
        of_net, of_split = jax.random.split(key)
        nets = copies(network.init(of_net), len(arms))
        order = jax.vmap(lambda table: shuffled(of_split, table))(tables)
        return {"nets": nets, "order": order.astype(jnp.float32)}

    def loss(params, draws):
        def of_arm(net, order, table, size):
            problem = order[(draws * size).astype(int)].astype(int)
            logits = network.logits(net, tokens(problem, config.modulus))
            right = table[problem]
            return optax.softmax_cross_entropy_with_integer_labels(logits, right).mean()

        each = jax.vmap(of_arm)(params["nets"], params["order"], tables, sizes)
        # A sum, so that no arm's gradient knows of the others.
        return each.sum(), {"nets": None, "order": params["order"]}

    def record(params):
        # Behind a barrier, lest the compiler works through the constants.
        asked = lax.optimization_barrier(tokens(jnp.arange(config.modulus**2), config.modulus))

        def of_arm(net, order, table, size):
            logits = network.logits(net, asked)
            seen = jnp.argsort(order) < size  # the place of each problem in the order
            unseen = ~seen & (table != UNDEFINED)
            right = logits.argmax(-1) == table
            mean = lambda values, of: (values * of).sum() / of.sum()
            found = {} if network.maps is None else diagnostics(network.maps(net, asked))
            return found | {
                "train": mean(right, seen),
                "test": mean(right, unseen),
                "norm": optax.tree.norm(net),
            }

        # One arm after the other: all problems of all arms at once would not fit an accelerator.
        each = lambda arm: of_arm(*arm)
        return lax.map(each, (params["nets"], params["order"], tables, sizes))

    found = fit(
        init,
        loss,
        jax.random.uniform,
        _optimizer(config, network, arms),
        run=run,
        name=name,
        seeds=config.seeds if seeds is None else seeds,
        steps=config.steps if steps is None else steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=config.eval_every,
        record=record,
    )
    return Cohort(tuple(arms), found.steps, found.history)


def _optimizer(config, network, arms: Sequence[Arm]) -> optax.GradientTransformation:
    """AdamW with a weight decay for each arm, and what is done to some arms at a step."""
    rates = [config.learning_rate] * len(arms)
    steps = [adamw(rates, [arm.decay for arm in arms])]
    if any(arm.reset_at >= 0 for arm in arms):
        steps.append(_resetting(network, config.reset_heads, [arm.reset_at for arm in arms]))
    if any(arm.clip_at >= 0 for arm in arms):
        steps.append(_clipping(config.clip_share, [arm.clip_at for arm in arms]))
    return optax.chain(*steps)


def _resetting(network, heads: int, at: Sequence[int]) -> optax.GradientTransformation:
    """Draws some heads anew at a step of each arm (counted from 0)."""

    def update(updates, count, params):
        fresh = network.init(jax.random.fold_in(jax.random.key(0), count))
        now = count == jnp.array(at)

        def one(update, param, new, mask):
            return jnp.where(along(now, param) & mask, new - param, update)

        mask = network.of_heads(fresh, heads)
        nets = jax.tree.map(one, updates["nets"], params["nets"], fresh, mask)
        return updates | {"nets": nets}, count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)  # type: ignore


def _clipping(share: float, since: Sequence[int]) -> optax.GradientTransformation:
    """From a step of each arm on, keeps the norm of its parameters at a share of what it was."""

    def init(params):
        return jnp.zeros((), jnp.int32), jnp.full(len(since), jnp.inf)

    def update(updates, state, params):
        count, most = state
        norms = jax.vmap(optax.tree.norm)
        most = jnp.where(count == jnp.array(since), share * norms(params["nets"]), most)
        moved = optax.apply_updates(params["nets"], updates["nets"])
        factor = jnp.minimum(1.0, most / norms(moved))
        back = lambda new, param: new * along(factor, new) - param
        return updates | {"nets": jax.tree.map(back, moved, params["nets"])}, (count + 1, most)

    return optax.GradientTransformation(init, update)  # type: ignore
