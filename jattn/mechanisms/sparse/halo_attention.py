"""HaloNet's blocked local attention (arXiv 2103.12731): a block of queries shares one window.

    o_i = sum_j softmax_j( s q_i . k_j + r (q_i . R_y[y_j - y_i] + q_i . R_x[x_j - x_i]) ) v_j

j runs over the cells of i's block and of a halo round it. R_y and R_x are learned, `[2 w - 1, d]`
for a window of w = block + 2 halo cells, and shared by heads and blocks.

Distinctive: windows move by whole blocks, so that attention is products of matrices, not of
shifted copies; it is equivariant to shifts by blocks only.

Limits: without halo the image is cut into windows; one block is global attention with relative
logits; blocks of one cell see a window round each cell.

The paper leaves open what is behind the border: those keys are hidden (`"mask"`), or are zeros
that take their part of the weight (`"zeros"`), as two well-known implementations have it.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.attention import attend
from jattn.checks import check_choice, check_count, check_shape


def halo_attention(
    query: Float[Array, "b y x h d"],
    key: Float[Array, "b Y X h d"],
    value: Float[Array, "b Y X h e"],
    relative_y: Float[Array, "n d"],
    relative_x: Float[Array, "n d"],
    *,
    block: int,
    halo: int,
    stride: int = 1,
    outside: Literal["mask", "zeros"] = "mask",
    scale: float | None = None,
    relative_scale: float = 1.0,
) -> Float[Array, "b y x h e"]:
    """Attention of the blocks of an image to themselves and a halo.

    Args:
        query: of cells; with a stride, of every stride-th cell along each axis.
        key, value: of all cells.
        relative_y, relative_x: R_y and R_x, `[2 w - 1, d]`; row `w - 1 + offset`, where a query's
            offset counts its own cells from the beginning of its window.
        block: cells along a side of a block, which divide the image; a multiple of the stride.
        halo: cells round a block.
        stride: of queries.
        outside: what keys behind the border are: hidden, or zeros.
        scale: s; default `d**-0.5`.
        relative_scale: r.

    Returns:
        `[b, y, x, h, e]` in the query's dtype.

    Raises:
        ValueError: sizes that do not fit.

    Reference:
        arXiv 2103.12731.

    Example:
        >>> x = jnp.ones((1, 4, 4, 2, 3))
        >>> table = jnp.zeros((7, 3))
        >>> halo_attention(x, x, x, table, table, block=2, halo=1).shape
        (1, 4, 4, 2, 3)
    """
    sizes: dict[str, int] = {}
    check_shape("key", key, "b y x h d", sizes)
    check_count("block", block)
    check_count("halo", halo, 0)
    check_count("stride", stride)
    check_choice("outside", outside, ("mask", "zeros"))
    b, height, width, h, d = key.shape
    window, own = block + 2 * halo, block // stride
    if height % block or width % block or block % stride:
        raise ValueError(
            f"block: expected a multiple of stride={stride} that divides {height} x {width}, "
            f"got {block}"
        )
    cells = (height // stride, width // stride)
    check_shape("query", query, "b y x h d", dict(b=b, y=cells[0], x=cells[1], h=h, d=d))
    for name, table in (("relative_y", relative_y), ("relative_x", relative_x)):
        check_shape(name, table, "n d", {"n": 2 * window - 1, "d": d})
    rows, columns = height // block, width // block
    # [b, rows, columns, own * own, h, d] -> the blocks are batch entries.
    split = query.reshape(b, rows, own, columns, own, h, d).transpose(0, 1, 3, 2, 4, 5, 6)
    queries = split.reshape(b * rows * columns, own * own, h, d)
    index_y, index_x = (np.arange(n)[:, None] * block + np.arange(window) for n in (rows, columns))

    def windows(image):
        padded = jnp.pad(image, [(0, 0), (halo, halo), (halo, halo), (0, 0), (0, 0)])
        found = padded[:, index_y][:, :, :, index_x]  # [b, rows, w, columns, w, h, d]
        found = found.transpose(0, 1, 3, 2, 4, 5, 6)
        return found.reshape(b * rows * columns, window * window, *image.shape[3:])

    mask = None
    if outside == "mask":
        inside = [
            (index >= halo) & (index < halo + size)
            for index, size in ((index_y, height), (index_x, width))
        ]
        real = inside[0][:, None, :, None] & inside[1][None, :, None, :]
        real = np.broadcast_to(real.reshape(1, rows * columns, -1), (b, rows * columns, window**2))
        mask = jnp.asarray(real.reshape(-1, 1, 1, window**2))
    offset = np.arange(window) - np.arange(own)[:, None] + window - 1
    wide = queries.reshape(-1, own, own, h, d)
    along_y = jnp.einsum("nyxhd,yYd->nhyxY", wide, relative_y[offset])
    along_x = jnp.einsum("nyxhd,xXd->nhyxX", wide, relative_x[offset])
    bias = along_y[..., :, None] + along_x[..., None, :]
    bias = relative_scale * bias.reshape(-1, h, own * own, window * window)
    out = attend(queries, windows(key), windows(value), bias=bias, mask=mask, scale=scale)
    out = out.reshape(b, rows, columns, own, own, h, -1).transpose(0, 1, 3, 2, 4, 5, 6)
    return out.reshape(b, *cells, h, -1)
