"""Training the one-layer model with many learning rates at once, and reading its attention."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jattn.tasks.sequence_classes import Sequence, SequenceClasses, sequence_sampler
from jattn.theory import scan_snap_model as model
from jattn.training import Paper

PAPER = Paper("arXiv 2305.16380", "Scan and Snap")
claim_of = PAPER.claim


def trainer(
    classes: SequenceClasses,
    *,
    steps: int,
    batch_size: int,
    length: int,
    optimizer: str,
    init: str,
) -> Callable[[Any], dict[str, jax.Array]]:
    """Makes a function of a sweep's cell `{"seed": int, "rates": [n, 2]}`.

    All n pairs of learning rates (of Y and of Z) see the same initial weights and data, and are
    traced values: one program serves any sweep.

    Returns:
        `cell -> {"attention": [n, steps + 1, K, M], "loss": [n, steps]}`, the attention of each
        class in the limit of long sequences.
    """
    probabilities = jnp.asarray(classes.probabilities, jnp.float32)
    queries = jnp.asarray(classes.queries)
    sample = sequence_sampler(classes, length)
    direction = {
        "sgd": optax.trace(decay=0.9),
        "adam": optax.scale_by_adam(),
    }[optimizer]

    def attention(params):
        return model.attention(params.Z[queries], probabilities)

    def run(cell):
        start, data = jax.random.split(jax.random.key(cell["seed"]))
        params = model.init(start, probabilities.shape[1], init)

        def step(state, number):
            keys = jax.random.split(jax.random.fold_in(data, number), batch_size)
            batch: Sequence = jax.vmap(sample)(keys)

            def one(params, opt_state, rates):
                loss, grads = jax.value_and_grad(model.loss)(params, batch)
                moves, opt_state = direction.update(grads, opt_state)
                moves = model.Parameters(*jax.tree.leaves(moves))
                params = model.Parameters(
                    params.Y - rates[0] * moves.Y, params.Z - rates[1] * moves.Z
                )
                return (params, opt_state), (attention(params), loss)

            # Sampling stands outside the map: all learning rates share it.
            params, opt_state = state
            return jax.vmap(one)(params, opt_state, cell["rates"])

        several = partial(jax.tree.map, lambda x: jnp.stack([x] * len(cell["rates"])))
        state = several((params, direction.init(params)))
        first = several(attention(params))
        _, (rest, losses) = jax.lax.scan(step, state, jnp.arange(steps))
        path = jnp.concatenate([first[None], rest])
        return {"attention": jnp.moveaxis(path, 0, 1), "loss": losses.T}

    return run


def common_mass(c: np.ndarray, classes: SequenceClasses) -> np.ndarray:
    """Attention paid to common tokens, `[..., K]`."""
    return c[..., : classes.num_common].sum(-1)


def distinct_weights(c: np.ndarray, classes: SequenceClasses) -> np.ndarray:
    """Attention paid to each class's own distinct tokens, rarest first, `[..., K, nu]`."""
    return np.take_along_axis(
        c, np.broadcast_to(classes.distinct, (*c.shape[:-1], classes.num_distinct)), -1
    )


def distinct_entropy(c: np.ndarray, classes: SequenceClasses) -> np.ndarray:
    """Entropy in nats of attention within a class's distinct tokens, `[..., K]`."""
    weights = distinct_weights(c, classes)
    share = weights / weights.sum(-1, keepdims=True)
    return -(share * np.log(np.maximum(share, 1e-30))).sum(-1)
