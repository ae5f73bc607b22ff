"""Masks of subjects and of turns: what leaks without them, and what they keep in long chats."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.plots import COLORS, label, panels
from jattn import attend
from jattn.mechanisms.sparse import isolation_attention as isolation
from jattn.mechanisms.sparse import role_aware_attention as roles
from jattn.training import Claim, Paper, Run
from jattn.training.claims import IDENTITY

ISOLATION = Paper("arXiv 2411.19261", "Isolation and reposition attention")
ROLES = Paper("arXiv 2512.06869", "Rhea: role-aware heuristic episodic attention")
INSTRUCTION, TURN, QUESTION, DIM = 8, 16, 4, 16  # tokens of each part of a chat, and their size
FETCHED = 2


def segments(run: Run, config) -> list[Claim]:
    """Mass between subjects, on a part that was moved, and on instructions behind many turns."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 2), config.draws)
    subjects = run.cached(
        "subjects",
        lambda: {k: np.asarray(v) for k, v in jax.jit(jax.vmap(_subjects))(keys).items()},
    )
    turns = tuple(config.chats)

    def chats():
        each = [jax.jit(jax.vmap(partial(_chat, count=count)))(keys) for count in turns]
        return {name: np.stack([one[name] for one in each], -1) for name in ("dense", "fetched")}

    mass = run.cached("chats", chats)
    _draw(run, turns, mass)
    kept = mass["fetched"][:, -1] / mass["dense"][:, 0]
    fallen = mass["dense"][:, 0] / mass["dense"][:, -1]
    moved = subjects["after"] / subjects["before"]
    return [
        ISOLATION.claim("leak", "without isolation one subject's cells give this share of their "
                        "weight to the other's", 0.2, float(np.median(subjects["open"])), ">=",
                        because="a fifth is seen as a blend", seeds=subjects["open"]),
        ISOLATION.claim("isolated", "with it, none", 0.0, float(subjects["isolated"].max()), "<=",
                        derived=True, kind=IDENTITY),
        ISOLATION.claim("repositioned", "once the reference's box is moved to the subject's, the "
                        "part that matches a cell gets more of its weight, where scores fall with "
                        "distance: ratio", 2.0, float(np.median(moved)), ">=",
                        because="twice as much is clearly more", seeds=moved),
        ROLES.claim("instructions-stay", f"{FETCHED} turns are fetched of {turns[-1]}: mass on "
                    f"instructions, over that of {turns[0]} turns in full", 0.8,
                    float(np.median(kept)), ">=", because="four fifths are most", seeds=kept),
        ROLES.claim("instructions-fade", f"with all {turns[-1]} turns in sight it falls: by this "
                    "factor", 4.0, float(np.median(fallen)), ">", because="a quarter is little",
                    seeds=fallen),
    ]  # fmt: skip


def _subjects(key: jax.Array) -> dict[str, jax.Array]:
    """Weight between two subjects of a picture, and on a part of a reference before and after."""
    of_cells, of_parts, of_noise = jax.random.split(key, 3)
    row, column = np.divmod(np.arange(64), 8)
    of_cell = np.where(row == 0, 0, np.where(column < 4, 1, 2))  # 0 is the background
    labels = jnp.asarray(of_cell)[None]
    query, keys = jax.random.normal(of_cells, (2, 1, 64, 2, DIM))
    other = jnp.broadcast_to((labels == 2)[..., None, None].astype(float), (1, 64, 2, 1))
    leak = lambda out: out[0, np.flatnonzero(of_cell == 1)].mean()
    found = {
        "open": leak(attend(query, keys, other)),
        "isolated": leak(isolation.isolation_attention(query, keys, other, labels)),
    }
    # A subject fills the first 8 x 8 cells of a reference and the last ones of the picture. A
    # cell's key carries what it shows and, in three more channels, where it is and that it is.
    source, target, side = (0, 0, 8, 8), (8, 8, 8, 8), 16
    shows = jax.random.normal(of_parts, (8, 8, DIM))
    reference = jnp.pad(jnp.concatenate([shows, jnp.ones((8, 8, 1))], -1), ((0, 8), (0, 8), (0, 0)))
    moved = isolation.reposition(reference, source, target, (side, side))
    seeks = shows.reshape(64, DIM) + 0.5 * jax.random.normal(of_noise, (64, DIM))
    for name, box, image in (("before", source, reference), ("after", target, moved)):
        y, x = (jnp.arange(8) + start for start in box[:2])
        place = jnp.stack(jnp.meshgrid(y, x, indexing="ij"), -1).reshape(64, 2)
        own = jnp.stack(jnp.meshgrid(*[jnp.arange(8, 16)] * 2, indexing="ij"), -1).reshape(64, 2)
        distance = jnp.linalg.norm((own[:, None] - place).astype(float), axis=-1)
        part = image[box[0] : box[0] + 8, box[1] : box[1] + 8, :DIM].reshape(64, DIM)
        _, weights = attend(
            seeks[None, :, None], part[None, :, None], part[None, :, None],
            bias=-0.1 * distance[None, None], scale=0.25 * DIM**-0.5, return_weights=True,
        )  # fmt: skip
        near = jnp.max(jnp.abs(place[:, None] - place), -1) <= 1  # a part: a cell and around it
        found[name] = (weights[0, 0] * near).sum(-1).mean()
    return found


def _chat(key: jax.Array, count: int) -> dict[str, jax.Array]:
    """Mass of a question's tokens on instructions, with so many turns between them."""
    of_cells, of_turns, of_likes = jax.random.split(key, 3)
    length = INSTRUCTION + count * TURN + QUESTION
    query, keys = jax.random.normal(of_cells, (2, 1, length, 1, DIM))
    place = jnp.arange(length) - INSTRUCTION
    turn = jnp.clip(place // TURN, 0, count)[None]
    role = jnp.where(place < 0, roles.INSTRUCTION, roles.USER + (turn % 2))
    given = (role == roles.INSTRUCTION)[..., None, None].astype(float)
    turns = jax.random.normal(of_turns, (1, count, DIM))
    likes = jax.random.normal(of_likes, (1, DIM))
    ages = jnp.arange(count, 0, -1.0)[None]
    fetched = roles.select_turns(likes, turns, ages, min(FETCHED, count))
    mass = lambda fetched: roles.role_aware_attention(
        query, keys, given, role, turn, jnp.pad(fetched, ((0, 0), (0, 1)))
    )[0, -QUESTION:].mean()  # fmt: skip
    return {"dense": mass(jnp.ones_like(fetched)), "fetched": mass(fetched)}


def _draw(run: Run, turns: tuple[int, ...], mass: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 1, width=4.0)
    for number, (name, title) in enumerate(
        (("dense", "all turns"), ("fetched", f"{FETCHED} turns fetched"))
    ):
        for row in mass[name]:
            axes[0, 0].plot(turns, row, color=COLORS[number], alpha=0.15)
        axes[0, 0].plot(turns, mass[name].mean(0), "o-", color=COLORS[number], label=title)
    axes[0, 0].set_xscale("log", base=2)
    axes[0, 0].set_ylim(bottom=0)
    label(axes[0, 0], "turns before the question", "mass on instructions")
    run.save_figure(
        figure, "instructions", "Mass of a question's tokens on instructions; lines are draws."
    )
