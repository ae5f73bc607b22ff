"""Encoders and dynamics, scored against neurons that simulate; without dynamics, and with none."""

import jax
import numpy as np

from experiments.mental_simulation import figures
from experiments.mental_simulation.models import (
    DYNAMICS,
    ENCODERS,
    encoder,
    frozen,
    simulated,
    trained_dynamics,
)
from experiments.mental_simulation.scoring import PAPER, epochs, population, score, shown
from jattn.tasks.neural_population import last_seen
from jattn.training import Claim, Run

STILL, ALONE = "last latent", "encoder alone"
MODES = (*DYNAMICS, STILL, ALONE)


def measured(run: Run, config, seed: int) -> np.ndarray:
    """Scores of each encoder and mode behind the occluder and over all frames, `[2, 3, modes]`."""
    of_clips, of_score = jax.random.split(jax.random.key(config.seed + seed))
    clips = shown(config, of_clips)
    responses = population(config, clips, "simulate", config.seed + seed)
    times = epochs(np.asarray(clips.visible))
    table = np.zeros((len(times), len(ENCODERS), len(MODES)))
    for row, name in enumerate(ENCODERS):
        model, params = encoder(run, config, name, seed)
        latent = frozen(config, model, params, seed)
        seen = jax.jit(latent.encode)(clips.frames)
        found = {STILL: last_seen(seen, clips.visible), ALONE: seen}
        for kind in DYNAMICS:
            label = f"{name}_{kind.replace(' ', '_')}_{seed}"
            step = trained_dynamics(run, config, kind, latent, label, seed)
            roll = jax.vmap(lambda z, v, step=step: simulated(step, z, v, config.past))
            found[kind] = jax.jit(roll)(seen, clips.visible)
        for place, frames in enumerate(times.values()):
            scores = [score(config, of_score, found[mode], responses, frames) for mode in MODES]
            table[place, row] = scores
    return table


def latents(run: Run, config) -> list[Claim]:
    """What dynamics add, and what encoders do."""
    seeds = range(config.model_seeds)
    found = np.stack([measured(run, config, seed) for seed in seeds])
    figures.latents(run, found, ENCODERS, MODES)
    hidden, everything = found[:, 0], found[:, 1]
    best = hidden[:, :, : len(DYNAMICS)].max(2)
    trained = best[:, 1:].max(1)
    gain = (best - hidden[:, :, MODES.index(STILL)])[:, 1:].mean(1)
    alone = hidden[:, :, MODES.index(ALONE)].max(1)
    overall = everything[:, :, : len(DYNAMICS)].max(2)
    said = lambda table: "; ".join(
        f"{name}: " + ", ".join(f"{m} {x:.2f}" for m, x in zip(MODES, row, strict=True))
        for name, row in zip(ENCODERS, table, strict=True)
    )
    claim = PAPER.claim
    return [
        claim(
            "dynamics-needed", "dynamics on the latents of encoders that learned explain neurons "
            "that simulate better than the last of these latents does: mean difference", 0.1,
            float(gain.mean()), ">=", seeds=gain,
            because="an independent program had 0.3 and more, without clutter",
            note=said(hidden.mean(0)),
        ),
        claim(
            "encoder-alone", "an encoder alone, which sees an empty screen, explains next to "
            "nothing of them", 0.1, float(alone.mean()), "<=", seeds=alone, derived=True,
        ),
        claim(
            "encoder-trained", "dynamics on an encoder that learned explain more than on one that "
            "did not: difference", 0.0, float((trained - best[:, 0]).mean()), ">",
            seeds=trained - best[:, 0], where="the abstract",
        ),
        claim(
            "from-clips", "and an encoder that learned from clips is better than one that learned "
            "from single frames, over all frames: difference", 0.0,
            float((overall[:, 2] - overall[:, 1]).mean()), ">", seeds=overall[:, 2] - overall[:, 1],
            where="the abstract", note=f"background of clutter; {said(everything.mean(0))}",
        ),
    ]  # fmt: skip
