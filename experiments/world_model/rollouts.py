"""Errors of what world models expect, one frame ahead and as they roll out on their own."""

from typing import Any

import jax
import numpy as np

from experiments.functional import optimizer
from experiments.margins import CLEAR, standard_error
from experiments.world_model import figures
from experiments.world_model.models import (
    FLUID,
    MODELS,
    WorldModel,
    rolled_out,
    watched,
    world_models,
)
from experiments.world_model.worlds import clips
from jattn.training import Claim, Paper, Run, fit

PAPER = Paper("arXiv 2603.21315", "FluidWorld")
SEEN, AHEAD = 4, 10  # frames of a test that are seen, and that are then expected
MIDDLE = 5
COPY, MEAN = "the last frame again", "the mean frame"
HERE = "it is what the others have in this run, and two standard errors"


def trained(run: Run, config, world: str, name: str, model: WorldModel) -> Any:
    """Parameters `[seeds, ...]` after training one frame ahead, through a window of frames.

    Gradients end with the window; states come from up to `carried` frames before it, of each clip
    another number, so that a state of any age that a test has was met.
    """
    draw = clips(config, world, config.carried + config.window + 2, test=False)

    def sample(key):
        of_clip, of_age = jax.random.split(key)
        return draw(of_clip), jax.random.randint(of_age, (), 0, config.carried + 1)

    def loss(params, batch):
        frames, blind = batch
        before, now = frames[:, : config.carried + 1], frames[:, config.carried : -1]
        state, _ = watched(model, params, before, blind=blind)
        _, expected = watched(model, params, now, jax.lax.stop_gradient(state))
        return ((expected - frames[:, config.carried + 2 :]) ** 2).mean()

    return fit(
        model.init,
        loss,
        sample,
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=f"{world}_{name.replace(' ', '_')}",
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(1, config.steps // 20),
    ).params


def test_clips(config, world: str) -> jax.Array:
    """The same clips for all models and seeds, `[n, SEEN + AHEAD, side, side]`."""
    sample = clips(config, world, SEEN + AHEAD, test=True)
    keys = jax.random.split(jax.random.key(config.seed + 1_000_000), config.test_size)
    return jax.jit(jax.vmap(sample))(keys)


def errors(frames: jax.Array, expected: jax.Array) -> jax.Array:
    """Mean squared error of each frame ahead, `[AHEAD]`."""
    return ((expected - frames[:, SEEN:]) ** 2).mean((0, 2, 3))


def floors(frames: jax.Array) -> dict[str, np.ndarray]:
    """Errors of two that learn nothing."""
    last = frames[:, SEEN - 1 : SEEN]
    mean = frames.mean((0, 1))
    return {name: np.asarray(errors(frames, each)) for name, each in ((COPY, last), (MEAN, mean))}


def measured(model: WorldModel, params: Any, frames: jax.Array) -> dict[str, np.ndarray]:
    """Errors `[seeds, AHEAD]`, and what the first seed expects of the first clip."""

    def one(params):
        expected = rolled_out(model, params, frames[:, :SEEN], AHEAD)
        return errors(frames, expected), expected[0]

    each, expected = jax.jit(lambda every: jax.lax.map(one, every))(params)
    return {"errors": np.asarray(each), "frames": np.asarray(expected[0])}


def rollouts(run: Run, config, params: dict[str, dict[str, Any]]) -> list[Claim]:
    """Compares the errors of all models in all worlds, by their parameters there."""
    models = world_models(config)
    claims = [fair({name: model.parameters for name, model in models.items()})]
    shown = {}
    for world, learned in params.items():
        frames, found = test_clips(config, world), {}
        for name, model in models.items():
            compute = lambda model=model, p=learned[name], f=frames: measured(model, p, f)
            found[name] = run.cached(f"{world}_{name.replace(' ', '_')}_errors", compute)
        at = {name: each["errors"] for name, each in found.items()}
        learned_nothing = floors(frames)
        shown[world] = (at, learned_nothing)
        figures.clip(run, world, np.asarray(frames[0]), {n: e["frames"] for n, e in found.items()})
        claims += claims_of(config, world, at, learned_nothing)
    figures.over_time(run, shown)
    return claims


def fair(sizes: dict[str, int]) -> Claim:
    """Models of one size."""
    middle = float(np.median(list(sizes.values())))
    return PAPER.claim(
        "fair", "models are as large as one another: greatest departure from the median", 0.0,
        max(abs(size / middle - 1) for size in sizes.values()), "~=", 0.05,
        because="widths are whole numbers", note=", ".join(f"{n} {s:,}" for n, s in sizes.items()),
    )  # fmt: skip


def claims_of(
    config, world: str, at: dict[str, np.ndarray], learned_nothing: dict[str, np.ndarray]
) -> list[Claim]:
    """What the paper says, of errors `[seeds, AHEAD]`."""
    others = [name for name in MODELS if name != FLUID]
    growth = {name: each[:, MIDDLE - 1] / each[:, 0] for name, each in at.items()}
    one = {name: each[:, 0] for name, each in at.items()}
    own = at[FLUID]
    copied = (own / learned_nothing[COPY]).max(1)
    blind = own[:, MIDDLE - 1] / learned_nothing[MEAN][MIDDLE - 1]
    seeds = f"{config.seeds} seeds, {config.steps} steps"
    said = lambda values, digits: ", ".join(
        f"{name} {each.mean():.{digits}f}" for name, each in values.items()
    )

    def below(values):  # clearly, of all others
        spread = lambda name: np.hypot(standard_error(values[name]), standard_error(values[FLUID]))
        return min(float(values[name].mean() - CLEAR * spread(name)) for name in others)

    claim = PAPER.claim
    return [
        claim(
            f"{world}-growth", f"{world}: error {MIDDLE} frames ahead over that of one grows less "
            "than either rival's", below(growth), float(growth[FLUID].mean()), "<=",
            because=HERE, note=f"{said(growth, 1)}; {seeds}", seeds=growth[FLUID],
        ),
        claim(
            f"{world}-one", f"{world}: one frame ahead it errs no more than the better rival",
            min(float(one[name].mean()) for name in others), float(one[FLUID].mean()), "<=",
            where="table of errors", because="it is what that one has in this run",
            note=f"{said(one, 4)}; {seeds}", seeds=one[FLUID],
        ),
        claim(
            f"{world}-copy", f"{world}: at each of {AHEAD} frames ahead it errs less than the last "
            "frame again: greatest ratio", 1.0, float(copied.mean()), "<", derived=True,
            note=f"at {AHEAD} frames: {said({n: e[:, -1] for n, e in at.items()}, 4)}, copy "
            f"{learned_nothing[COPY][-1]:.4f}", seeds=copied,
        ),
        claim(
            f"{world}-mean", f"{world}: {MIDDLE} frames ahead it still errs less than the mean "
            "frame, which is no prediction: ratio", 1.0, float(blind.mean()), "<", derived=True,
            note=f"the mean frame {learned_nothing[MEAN][MIDDLE - 1]:.4f}", seeds=blind,
        ),
    ]  # fmt: skip
