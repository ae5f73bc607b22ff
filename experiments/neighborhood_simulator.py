"""Counts the tiles of a kernel that a window on a grid visits, and draws them.

    python -m experiments.neighborhood_simulator --shape=30x48x80 --window=18x24x24 --stride=16x8x8
    python -m experiments.neighborhood_simulator --shape=16x16 --window=5x5 --figure=tiles.png

Prints what share of keys a query sees, how many tiles of keys all tiles of queries visit, and what
dense attention with the same tiles takes at least and on average for one that skips the others.
With --figure, draws which tiles are visited, and which of them need a mask.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.flags import Parser
from jattn import masks
from jattn.attention.neighborhoods import Axis
from jattn.mechanisms.sparse.neighborhood_attention import tile_counts


def sizes(text: str) -> tuple[int, ...]:
    """A type of flags: whole numbers from 1 on, separated by x.

    Example:
        >>> sizes("30x48")
        (30, 48)
    """
    parts = text.split("x")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ValueError
    return tuple(map(int, parts))


def tile_map(
    shape: Sequence[int], window: Sequence[int], stride: Sequence[int], causal: Sequence[bool],
    q_tile: Sequence[int], k_tile: Sequence[int], dilation: Sequence[int],
) -> np.ndarray:  # fmt: skip
    """0, 1 or 2 for tiles that are skipped, masked or full, `[q tiles, k tiles]`, box after box."""
    found = np.full((1, 1), 2)
    for numbers in zip(shape, window, stride, dilation, causal, q_tile, k_tile, strict=True):
        *given, q_size, k_size = numbers
        some, every, _ = Axis(*given).tiles(q_size, k_size)
        along = some.astype(int) + every
        joint = np.minimum(found[:, None, :, None], along[None, :, None, :])
        found = joint.reshape(found.shape[0] * along.shape[0], -1)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("neighborhood_simulator", __doc__)
    parser.add_argument("--shape", type=sizes, required=True, help="of the grid, as 30x48x80")
    parser.add_argument("--window", type=sizes, required=True, help="along each axis")
    parser.add_argument("--stride", type=sizes, help="along each axis; default 1")
    parser.add_argument("--dilation", type=sizes, help="along each axis; default 1")
    parser.add_argument("--causal", default="", help="axes that see no later cell, as 0,2")
    parser.add_argument("--q_tile", type=sizes, help="shape of a tile of queries")
    parser.add_argument("--k_tile", type=sizes, help="shape of a tile of keys")
    parser.add_argument("--figure", type=Path, help="where to draw the tiles, a PNG")
    chosen = parser.parse_args(argv)
    axes = len(chosen.shape)
    # Of 128 cells, as kernels have them, a cube as far as it goes.
    default = {1: (128,), 2: (8, 16), 3: (2, 8, 8)}.get(axes, (2,) * axes)
    late = {int(axis) for axis in chosen.causal.split(",") if axis.isdigit()}
    ones = (1,) * axes
    given = (
        chosen.shape, chosen.window, chosen.stride or ones,
        tuple(axis in late for axis in range(axes)), chosen.q_tile or default,
        chosen.k_tile or default, chosen.dilation or ones,
    )  # fmt: skip
    try:
        masks.neighborhood(*given[:2], stride=given[2], causal=given[3], dilation=given[6])
        counts = tile_counts(*given)
    except ValueError as error:
        parser.error(str(error))
    print(f"a query sees {counts.density:.4f} of all keys: {counts.flop_speedup:.2f} times fewer")
    print(
        f"tiles: {counts.visited_tiles} of {counts.dense_tiles} are visited, "
        f"{counts.full_tiles} full and {counts.partial_tiles} with a mask"
    )
    print(
        f"bound: {counts.speedup_max:.2f} times dense attention (the slowest queries visit "
        f"{counts.max_visits_per_q_tile} tiles), {counts.speedup_mean:.2f} on average"
    )
    if chosen.figure is not None:
        draw(tile_map(*given)).savefig(chosen.figure, dpi=150, bbox_inches="tight")
        print(f"drawn in {chosen.figure}")
    return 0


def draw(tiles: np.ndarray) -> Figure:
    """A picture of what `tile_map` gives."""
    colours = ("#f2f2f2", "#f0a050", "#30608f")
    figure = Figure(figsize=(6, 6.4))
    axes = figure.subplots()
    axes.imshow(tiles, cmap=ListedColormap(colours), vmin=0, vmax=2, interpolation="nearest")
    axes.set(xlabel="tiles of keys", ylabel="tiles of queries")
    names = ("skipped", "with a mask", "full")
    handles = [Patch(color=c, label=n) for c, n in zip(colours, names, strict=True)]
    figure.legend(handles=handles, ncols=3, loc="upper center", frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main())
