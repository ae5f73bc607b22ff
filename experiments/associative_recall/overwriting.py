"""Keys written twice, and asked for their second value: no training."""

import jax
import jax.numpy as jnp
import numpy as np

from jattn.mechanisms.layers.norms import unit_norm
from jattn.recurrence import recur
from jattn.training import Claim, Paper, Run, sweep

DELTA_RULE = Paper("arXiv 2406.06484", "Parallelizing linear transformers with the delta rule")
# Of 32 dimensions and 16 pairs; the share that a memory of sums is right half by chance.
LINEAR, DELTA, SLACK = 0.51, 0.96, 0.03


def written_twice(key: jax.Array, dim: int, pairs: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Unit keys `[2 n, d]` and one-hot values `[2 n, n]`, every key twice; the second ones `[n]`.

    A key's two values differ.
    """
    of_keys, of_values, of_shift, of_order = jax.random.split(key, 4)
    keys = unit_norm(jax.random.normal(of_keys, (pairs, dim)))
    first = jax.random.permutation(of_values, pairs)
    shift = jax.random.randint(of_shift, (), 1, pairs)
    second = jnp.roll(first, shift)
    order = jax.random.permutation(of_order, pairs)
    values = jax.nn.one_hot(jnp.concatenate([first, second[order]]), pairs)
    return jnp.concatenate([keys, keys[order]]), values, second


def recalled(key: jax.Array, dim: int, pairs: int) -> dict[str, jax.Array]:
    """Share of keys whose largest read is their second value, by how the memory is written."""
    keys, values, second = written_twice(key, dim, pairs)
    keys, values = keys[None, :, None], values[None, :, None]
    found = {}
    for name, beta in (("linear", None), ("delta", jnp.ones(keys.shape[:3]))):
        _, state = recur(keys, keys, values, beta=beta, return_state=True)
        read = jnp.einsum("nd,de->ne", keys[0, :pairs, 0], state[0, 0])
        found[name] = (read.argmax(-1) == second).mean()
    return found


def overwriting(run: Run, config) -> list[Claim]:
    """A sum cannot forget the first value; the delta rule takes it out."""
    settings = config.overwriting
    cells = jax.random.split(jax.random.key(config.seed), 20)
    each = max(1, settings.draws // len(cells))

    def cell(data):
        keys = jax.random.split(jax.random.wrap_key_data(data), each)
        found = jax.vmap(lambda k: recalled(k, settings.dim, settings.pairs))(keys)
        return jax.tree.map(lambda x: x.mean(), found)

    shares = sweep(run, "overwriting", cell, list(np.asarray(jax.random.key_data(cells))))
    mean = {name: float(share.mean()) for name, share in shares.items()}
    note = f"{settings.pairs} pairs, {settings.dim} dimensions, {each * len(cells)} draws"
    statement = "keys written twice: share of second values that {} recalls"
    return [
        DELTA_RULE.claim(
            f"overwriting-{name}",
            statement.format(words),
            expected,
            mean[name],
            "~=",
            SLACK,
            because="an independent simulation has it",
            note=note,
        )
        for name, words, expected in (
            ("linear", "a sum", LINEAR),
            ("delta", "the delta rule", DELTA),
        )
    ]
