"""Windows on grids, counted: tiles that a kernel visits, its memory, and pairs of conditions."""

import jax
import jax.numpy as jnp
import numpy as np

import jattn
from experiments.neighborhood_simulator import draw, tile_map
from jattn.mechanisms.sparse.neighborhood_attention import tile_counts
from jattn.mechanisms.sparse.position_aligned_attention import aligned_mask
from jattn.training import Claim, Paper, Run
from jattn.training.claims import IDENTITY

GENERALIZED = Paper("arXiv 2504.16922", "Generalized neighborhood attention")
FUSED = Paper("arXiv 2403.04690", "Faster neighborhood attention")
ALIGNED = Paper("arXiv 2602.06850", "Position-aligned and keyword-scoped attention")
VIDEO, IMAGE = (30, 48, 80), (256, 256)
# Shape, window, stride, tiles of queries and keys, and the speed-up that was timed on a GPU.
TIMED = {
    "video": (VIDEO, (18, 24, 24), (1, 1, 1), (2, 8, 8), (2, 8, 8), 3.6),
    "video-wide-tile": (VIDEO, (18, 24, 24), (1, 1, 1), (4, 8, 8), (2, 8, 8), 3.2),
    "image": (IMAGE, (80, 80), (1, 1), (16, 8), (16, 8), 6.0),
    "image-wide-tile": (IMAGE, (80, 80), (1, 1), (16, 16), (16, 8), 5.0),
    "video-strided": (VIDEO, (18, 24, 24), (16, 8, 8), (2, 8, 8), (2, 8, 8), 12.1),
    "image-strided": (IMAGE, (80, 80), (16, 16), (16, 16), (16, 8), 12.3),
}
WINDOW, HEADS = 7, 4


def tiles(run: Run, config) -> list[Claim]:
    """Bounds of speed-ups, bytes of a fused form, and pairs of a mask of positions."""
    claims = []
    for name, (shape, window, stride, q_tile, k_tile, timed) in TIMED.items():
        late = (False,) * len(shape)
        counts = tile_counts(shape, window, stride, late, q_tile, k_tile)
        claims.append(
            GENERALIZED.claim(f"bound-{name}", f"a window of {_x(window)} on {_x(shape)} at stride "
                              f"{_x(stride)}: tiles of {_x(q_tile)} and {_x(k_tile)} bound its "
                              "speed-up, in units of the timed one", 1.0,
                              counts.speedup_max / timed, "~=", 0.25,
                              where="its timings on Blackwell and Hopper GPUs",
                              because="a quarter is what kernels differ by",
                              note=f"{counts.speedup_max:.2f} against {timed}")
        )  # fmt: skip
        if max(stride) > 1:
            claims.append(
                GENERALIZED.claim(f"whole-{name}", "with that stride no tile needs a mask: partial "
                                  "tiles", 0, counts.partial_tiles, "<=", where="the simulator",
                                  derived=True, kind=IDENTITY,
                                  note=f"{counts.visited_tiles} of {counts.dense_tiles} visited")
            )  # fmt: skip
    shape, window, tile = (24, 24), (8, 8), (4, 4)
    for step in (1, 4, 8):
        found = tile_map(shape, window, (step, step), (False,) * 2, tile, tile, (1, 1))
        caption = f"Tiles of 4 x 4 cells that a window of 8 x 8 on 24 x 24 visits, stride {step}."
        run.save_figure(draw(found), f"tiles_stride_{step}", caption)
    used, stored = run.cached("bytes", lambda: _bytes(config.grid)).values()
    claims.append(
        FUSED.claim("fused-bytes", f"fused, a window of {WINDOW} x {WINDOW} keeps less than an "
                    "eighth of the unfused form's scores: temporary bytes over bytes of scores, "
                    f"{config.grid} x {config.grid} cells", 1 / 8, float(used / stored), "<",
                    because="it is the least for windows of this size; CPU, float32",
                    note=f"{int(used):,} and {int(stored):,} bytes")
    )  # fmt: skip
    cells, conditions = 32 * 32, 4
    seen = float(jnp.sum(aligned_mask((32, 32), conditions).dense(cells, conditions * cells)))
    # The picture to itself, to each condition's own place, and each condition's place to itself.
    share = (cells**2 + seen + conditions * cells) / ((1 + conditions) * cells) ** 2
    claims.append(
        ALIGNED.claim("aligned-pairs", f"{conditions} conditions of {cells} cells that are seen at "
                      "their own place alone: share of the pairs of joint attention", 0.12, share,
                      "<=", where="10 times faster at many conditions", derived=True, kind=IDENTITY)
    )  # fmt: skip
    return claims


def _bytes(side: int) -> dict[str, np.ndarray]:
    """Temporary bytes of the fused form, and bytes of all scores of its windows."""
    cells = side * side
    x = jax.ShapeDtypeStruct((1, cells, HEADS, 32), jnp.float32)
    mask = jattn.masks.neighborhood((side, side), (WINDOW, WINDOW))
    program = jax.jit(lambda q, k, v: jattn.attend(q, k, v, mask=mask)).lower(x, x, x).compile()
    analysis = program.memory_analysis()
    used = 0 if analysis is None else analysis.temp_size_in_bytes
    return {"used": np.array(used), "stored": np.array(4 * cells * HEADS * WINDOW**2)}


def _x(sizes) -> str:
    return " x ".join(map(str, sizes))
