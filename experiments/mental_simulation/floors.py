"""Ceilings and floors, which nothing learns: features of the true state and of less than that."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.mental_simulation import figures
from experiments.mental_simulation.scoring import PAPER, epochs, population, score, shown
from jattn.tasks.neural_population import KINDS, known, last_seen, state_features
from jattn.tasks.pong import Pong
from jattn.training import Claim, Run

ROWS = ("true state", "no bounce", "position", "freeze", "time only", "visible only")


def features_of(clips: Pong) -> dict[str, jax.Array]:
    """Features that know all, or something, `[clips, t, m]` each."""
    state, visible = clips.state, clips.visible
    frames = state.shape[1]
    start = last_seen(state, visible)
    since = (
        jnp.arange(frames)
        - last_seen(
            jnp.broadcast_to(jnp.arange(float(frames))[:, None], (*visible.shape, 1)), visible
        )[..., 0]
    )
    gone = start.at[..., :2].add(since[..., None] * start[..., 2:])
    return {
        "true state": state_features(state),
        "no bounce": state_features(gone),
        "position": state[..., :2],
        "freeze": known(state, visible, "freeze"),
        "time only": jnp.broadcast_to(jnp.eye(frames), (len(state), frames, frames)),
        "visible only": known(state, visible, "visual"),
    }


def measured(config, seed: int) -> dict[str, np.ndarray]:
    """Scores behind the occluder and over all frames, `[kind, row]`."""
    of_clips, of_score = jax.random.split(jax.random.key(seed))
    clips = shown(config, of_clips)
    features, times = features_of(clips), epochs(np.asarray(clips.visible))
    found = {}
    for epoch, frames in times.items():
        table = []
        for number, kind in enumerate(KINDS):
            responses = population(config, clips, kind, seed + 100 * number)
            # Neurons that see have nothing to say while the ball is hidden.
            silent = kind == "visual" and epoch == "hidden"
            row = [
                np.nan if silent else score(config, of_score, features[name], responses, frames)
                for name in ROWS
            ]
            table.append(row)
        found[epoch] = np.array(table)
    return found


def floors(run: Run, config) -> list[Claim]:
    """Which knowledge explains which neurons."""
    seeds = [config.seed + seed for seed in range(config.seeds)]
    tables = run.cached("floors", lambda: _stacked([measured(config, seed) for seed in seeds]))
    figures.floors(run, tables, ROWS, KINDS)
    at = {name: number for number, name in enumerate(ROWS)}
    of = lambda epoch, kind, name: tables[epoch][:, KINDS.index(kind), at[name]]
    simulate = {name: of("hidden", "simulate", name) for name in ROWS}
    ladder = np.min(
        [
            simulate["true state"] - simulate["no bounce"],
            simulate["no bounce"] - simulate["freeze"],
            simulate["freeze"] - simulate["time only"],
        ],
        axis=0,
    )
    freeze = of("hidden", "freeze", "freeze") - of("hidden", "freeze", "true state")
    visual = of("all", "visual", "visible only") - of("all", "visual", "true state")
    note = ", ".join(f"{name} {values.mean():.2f}" for name, values in simulate.items())
    claim = PAPER.claim
    return [
        claim(
            "ceiling", "the true state explains neurons that simulate, whatever their noise: "
            "corrected score", 1.0, float(simulate["true state"].mean()), "~=", 0.03, derived=True,
            seeds=simulate["true state"], note=note,
        ),
        claim(
            "ladder", "and less knowledge explains less, from the true state by one without "
            "bounces and the last one seen to time alone: the smallest step", 0.0,
            float(ladder.mean()), ">", derived=True, seeds=ladder,
        ),
        claim(
            "freeze", "neurons that remember what was seen last are explained by that, more than "
            "by the true state: difference", 0.0, float(freeze.mean()), ">", derived=True,
            seeds=freeze,
        ),
        claim(
            "visual", "and neurons that see by what is seen, over all frames: difference", 0.0,
            float(visual.mean()), ">", derived=True, seeds=visual,
        ),
        claim(
            "time", "over all frames time alone explains much of neurons that simulate, and is to "
            "be shown beside every model: score", 0.3,
            float(of("all", "simulate", "time only").mean()), ">=",
            because="an independent program had 0.50", seeds=of("all", "simulate", "time only"),
        ),
    ]  # fmt: skip


def _stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
