"""Adapters for memories that learn at test time."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp

from jattn.mechanisms.memory.networks import network
from jattn.mechanisms.memory.neural_memory import memory_step, neural_memory, start

WEIGHT = re.compile(r"(?:model\.)?weights\.(\d+)")


def _field(name):
    """Where a parameter of the case stands in ours: `("weights", 0)` or `("gain",)`."""
    found = WEIGHT.fullmatch(name)
    return ("weights", int(found[1])) if found else ("gain",)


def _at(field, tree):
    for part in field:
        tree = tree[part]
    return tree


def titans(case):
    """Reads, the weights after every update, and the weights and momentum at the end."""
    options, arrays = case.info["options"], case.arrays
    names = [name.removeprefix("init.") for name in arrays if name.startswith("init.")]
    chosen = {_field(name): jnp.asarray(arrays[f"init.{name}"]) for name in names}
    matrices = sorted(field for field in chosen if field[0] == "weights")
    params0: dict[str, Any] = {"weights": [chosen[field] for field in matrices]}
    if ("gain",) in chosen:
        params0["gain"] = chosen["gain",]
    chunk, length = options["chunk_size"], arrays["keys"].shape[1]
    settings = dict(
        apply_fn=network, chunk=chunk, refresh=options.get("batch_size"), read="completed"
    )
    wanted = -(-length // chunk)

    def rates(name):  # those of an update that is not whole do not matter
        rate = jnp.asarray(arrays[name])[:, :wanted]
        return jnp.pad(rate, ((0, 0), (0, wanted - rate.shape[1])))

    query, key, value = (jnp.asarray(arrays[n]) for n in ("queries", "keys", "values"))
    # The case's loss is the mean over channels, ours the sum.
    step_size = jnp.asarray(arrays["theta"]) / value.shape[-1]
    forget, momentum = rates("alpha"), rates("eta")

    @jax.jit
    def at_once(params0):
        one = lambda x: x[:, :, None]
        return neural_memory(
            jax.tree.map(lambda x: x[None], params0),
            *map(one, (query, key, value, step_size, forget, momentum)),
            **settings,
        )

    @jax.jit
    def token_by_token(params0):
        per_token = lambda x: jnp.repeat(x, chunk, 1)[:, :length]

        def sequence(*inputs):
            def step(state, token):
                state, _ = memory_step(state, *token, **settings)
                return state, state.weights

            return jax.lax.scan(step, start(params0), inputs)[1]

        inputs = (query, key, value, step_size, per_token(forget), per_token(momentum))
        return jax.vmap(sequence)(*inputs)

    out, weights, surprise = at_once(params0)
    stages = token_by_token(params0)
    outputs = {"retrieved": out[:, :, 0]}
    for name in names:
        at = functools.partial(_at, _field(name))
        first = jnp.broadcast_to(at(params0), (len(query), 1, *at(params0).shape))
        outputs[f"weights_after_chunk.{name}"] = jnp.concatenate(
            [first, at(stages)[:, chunk - 1 :: chunk]], 1
        )
        outputs[f"final_weight.{name}"] = at(weights)[:, 0]
        outputs[f"final_momentum.{name}"] = at(surprise)[:, 0]
    return {name: value for name, value in outputs.items() if name in arrays}


ADAPTERS = {("linear_and_memory", "titans_memory"): titans}
