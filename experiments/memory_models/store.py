"""What one pass over pairs leaves in a memory, by its network: no training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.memory_models import figures
from experiments.memory_models.common import TITANS
from jattn.mechanisms.layers.norms import rms_norm, unit_norm
from jattn.mechanisms.memory.networks import network, network_init
from jattn.mechanisms.memory.neural_memory import neural_memory
from jattn.mechanisms.memory.titans_memory import read_memory
from jattn.training import Claim, Run, sweep

MATRIX, NORM, CLIPPED, PLAIN = "matrix", "x + norm(mlp)", "x + norm(mlp), clipped", "mlp"
BY_SIMULATION = "independent simulations reach it"


class Memory(NamedTuple):
    """A network of the zoo and how it learns."""

    depth: int
    residual_norm: bool
    clip: float | None = None


MEMORIES = {
    MATRIX: Memory(1, False),
    NORM: Memory(2, True),
    CLIPPED: Memory(2, True, clip=2.0),
    PLAIN: Memory(2, False),
}


def steps_of(memory: Memory, params0, rate: jax.Array, ratio: jax.Array):
    """Step sizes of the leaves: `ratio` is that of the first matrix over the others'."""
    count = len(params0["weights"])
    found = {"weights": [rate * ratio if n == 0 and count > 1 else rate for n in range(count)]}
    return found | ({"gain": rate} if memory.residual_norm else {})


def remembered(settings, memory: Memory, key: jax.Array) -> jax.Array:
    """Mean cosine of values and what is read at their keys after one pass, by step sizes."""
    of_keys, of_values, of_network = jax.random.split(key, 3)
    shape = (settings.pairs, settings.dim)
    keys = unit_norm(jax.random.normal(of_keys, shape))
    values = rms_norm(jax.random.normal(of_values, shape))  # as the zoo's deep memories have them
    grid = jnp.meshgrid(jnp.array(settings.rates), jnp.array(settings.ratios), indexing="ij")
    rate, ratio = (x.ravel() for x in grid)
    params0 = network_init(
        of_network,
        settings.dim,
        depth=memory.depth,
        expansion=settings.expansion,
        residual_norm=memory.residual_norm,
    )
    # Settings take the place of heads.
    params0 = jax.tree.map(lambda x: jnp.repeat(x[None], len(rate), 0), params0)
    side_by_side = lambda x: jnp.repeat(x[None, :, None], len(rate), 2)
    keys, values = side_by_side(keys), side_by_side(values)
    spread = lambda x: jnp.broadcast_to(x, keys.shape[:3])
    nothing = spread(jnp.zeros(()))
    steps = jax.tree.map(spread, steps_of(memory, params0, rate, ratio))
    _, weights, _ = neural_memory(
        params0, keys, keys, values, steps, nothing, nothing, apply_fn=network, clip=memory.clip
    )
    read = read_memory(weights, keys)
    lengths = jnp.linalg.norm(read, axis=-1) * jnp.linalg.norm(values, axis=-1)
    cosine = ((read * values).sum(-1) / lengths)[0].mean(0)
    return jnp.nan_to_num(cosine, nan=-1.0)  # of those that diverged


def store(run: Run, config) -> list[Claim]:
    """One pass of unit keys and random values, by the memory's network."""
    settings = config.store

    def cell(seed):
        key = jax.random.key(seed)
        return {name: remembered(settings, memory, key) for name, memory in MEMORIES.items()}

    seeds = [np.int32(config.seed + seed) for seed in range(settings.seeds)]
    found = sweep(run, "store", cell, seeds)
    best = {name: each[:, each.mean(0).argmax()] for name, each in found.items()}
    figures.stored(run, best, settings)
    mean = {name: float(each.mean()) for name, each in best.items()}
    error = {name: float(each.std(ddof=1) / len(each) ** 0.5) for name, each in best.items()}
    note = (
        f"{settings.pairs} pairs, d = {settings.dim}, {settings.seeds} seeds, best step sizes of "
        + "each: "
        + ", ".join(f"{name} {mean[name]:.3f} ± {error[name]:.3f}" for name in best)
    )
    says = "one pass over unit keys, read by cosine: "
    return [
        TITANS.claim("store-norm", f"{says}a network with a residual and a norm, gradients clipped",
                     0.6, mean[CLIPPED], ">=", because=BY_SIMULATION, note=note,
                     seeds=best[CLIPPED]),
        TITANS.claim("store-plain", f"{says}a plain MLP", 0.75, mean[PLAIN], ">=",
                     because=BY_SIMULATION, seeds=best[PLAIN]),
        TITANS.claim("store-deep", f"{says}the better network of two layers leaves more than a "
                     "matrix", mean[MATRIX], max(mean[PLAIN], mean[CLIPPED]), ">",
                     2 * -max(error.values()), where="section 3.1",
                     because="it is what a matrix has in this run, and two standard errors"),
    ]  # fmt: skip
