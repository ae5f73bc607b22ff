"""What mixers cost on a larger picture: time and operations of a forward pass."""

import time

import jax
import jax.numpy as jnp
import numpy as np

import jattn
from experiments.image_mixers.models import names, parsed

REPEATS = 7


def times(config) -> dict[str, np.ndarray]:
    """Milliseconds (medians, taken in turn) and MFLOP of each mixer, in the order of `names`."""
    side = config.speed_grid
    x = jax.random.normal(jax.random.key(0), (1, side * side, config.dim))
    programs = []
    for entry in names(config):
        name, options = parsed(entry, (side, side))
        mixer = jattn.zoo.make(name, dim=config.dim, heads=config.heads, causal=False, **options)
        params = mixer.init(jax.random.key(1))
        program = jax.jit(mixer.apply).lower(params, x).compile()
        programs.append((program, params))
    taken = np.zeros((REPEATS + 1, len(programs)))
    for turn in taken:
        for number, (program, params) in enumerate(programs):
            start = time.perf_counter()
            jax.block_until_ready(program(params, x))
            turn[number] = time.perf_counter() - start
    flops = [(program.cost_analysis() or {}).get("flops", jnp.nan) for program, _ in programs]
    return {"ms": 1e3 * np.median(taken[1:], 0), "mflop": np.array(flops) / 1e6}
