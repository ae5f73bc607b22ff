"""Half of a belief made noise: how much of the harm is gone after the field evolved by itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.margins import CLEAR, standard_error
from experiments.world_model import figures
from experiments.world_model.models import FLUID, fluid_world, watched
from experiments.world_model.rollouts import PAPER, SEEN, test_clips
from jattn.mechanisms.memory.grids import laplacian2d
from jattn.systems.fluid_world import GRID_DILATIONS, LONGEST, evolve_belief
from jattn.training import Claim, Run

FRAMES, SPOILT = 10, 0.5  # for which beliefs evolve; share of their cells
FIELD, LINEAR = "reaction and diffusion", "diffusion alone"


def spoilt(key: jax.Array, belief: jax.Array) -> jax.Array:
    """Half of the cells of each belief replaced by noise of the field's own mean and spread."""
    of_cells, of_noise = jax.random.split(key)
    hit = jax.random.bernoulli(of_cells, SPOILT, (*belief.shape[:3], 1))
    mean, spread = belief.mean((0, 1, 2)), belief.std((0, 1, 2))
    return jnp.where(hit, mean + spread * jax.random.normal(of_noise, belief.shape), belief)


def diffused(params, belief: jax.Array, steps: int) -> jax.Array:
    """The linear control: the same diffusion, in as many steps as long, and nothing else."""
    field = params["belief"]
    dt = jnp.clip(jnp.exp(field["log_dt"]), 0.005, LONGEST)
    weights = jax.nn.softplus(field["diffusion"])
    advance = lambda u, _: (u + dt * laplacian2d(u, weights, GRID_DILATIONS), None)
    return jax.lax.scan(advance, belief, length=steps)[0]


def distances(config, params, belief: jax.Array, wrong: jax.Array) -> dict[str, jax.Array]:
    """One minus the correlation over cells of the spoilt field and the whole one, by frame."""
    evolved = {
        FIELD: lambda u: evolve_belief(params, u, steps=config.belief_steps),
        LINEAR: lambda u: diffused(params, u, config.belief_steps),
    }

    def apart(u, v):
        u, v = (x - x.mean((1, 2), keepdims=True) for x in (u, v))
        return 1 - (u * v).sum() / jnp.sqrt((u**2).sum() * (v**2).sum())

    def of(evolve):
        def advance(both, _):
            return tuple(evolve(u) for u in both), apart(*both)

        return jax.lax.scan(advance, (belief, wrong), length=FRAMES + 1)[1]

    return {name: of(evolve) for name, evolve in evolved.items()}


def measured(config, params: Any, frames: jax.Array) -> dict[str, jax.Array]:
    """`distances` of each seed, `[seeds, FRAMES + 1]`, of beliefs after these frames."""
    model = fluid_world(config)

    def one(params):
        belief, _ = watched(model, params, frames)
        wrong = spoilt(jax.random.key(config.seed + 2_000_000), belief)
        return distances(config, params, belief, wrong)

    return jax.jit(lambda every: jax.lax.map(one, every))(params)


def recovery(run: Run, config, params: dict[str, dict[str, Any]]) -> list[Claim]:
    """Beliefs after some frames were seen, made noise in part, evolving with nothing seen."""
    claims, shown = [], {}
    for world, learned in params.items():
        frames = test_clips(config, world)[:, :SEEN]
        compute = lambda p=learned[FLUID], f=frames: measured(config, p, f)
        found = run.cached(f"{world}_recovery", compute)
        shown[world] = found
        left = {name: each[:, -1] / each[:, 0] for name, each in found.items()}
        spread = float(np.hypot(standard_error(left[FIELD]), standard_error(left[LINEAR])))
        claims.append(
            PAPER.claim(
                f"{world}-recovery", f"{world}: half of the belief made noise, after {FRAMES} "
                "frames of evolving a smaller share of the harm is left than by diffusion alone",
                float(left[LINEAR].mean()) - CLEAR * spread, float(left[FIELD].mean()), "<=",
                because="it is what diffusion alone leaves in this run, and two standard errors",
                note="harm is one minus the correlation of the fields over their cells; diffusion "
                f"alone leaves {left[LINEAR].mean():.2f}", seeds=left[FIELD],
            )
        )  # fmt: skip
    figures.harm(run, shown)
    return claims
