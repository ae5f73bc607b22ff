"""Isolation and reposition attention of IR-Diffusion (arXiv 2411.19261): subjects do not mix.

A picture of several subjects is drawn beside references of each. A query of subject a sees the
picture's tokens of a and of the background, and the reference's tokens of a:

    i sees j:   label(j) in {label(i), 0}      in the picture
                label(j) = label(i) > 0        in the reference

and background queries see the whole picture. Before positions count, a subject's box in the
reference is resized and moved to where it stands in the picture, so that like parts meet.

What the background sees the paper's abstract leaves open.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.attention import attend, masks
from jattn.checks import check_shape

Box = Sequence[int]  # first row, first column, rows, columns


def isolation_mask(
    labels: Int[Array, "#b t"], reference: Int[Array, "#b r"] | None = None
) -> masks.Mask:
    """Who sees whom: keys are the reference's tokens, and behind them the picture's.

    Args:
        labels: of the picture's tokens, 0 = background, else the subject.
        reference: of the reference's.

    Example:
        >>> labels = jnp.array([[0, 1, 2]])
        >>> isolation_mask(labels, jnp.array([[1]])).dense(3, 4)[0, 0].astype(int).tolist()
        [[0, 1, 1, 1], [1, 1, 1, 0], [0, 1, 0, 1]]
    """
    check_shape("labels", labels, "b t", {})
    before = 0 if reference is None else reference.shape[1]
    keys = labels if reference is None else jnp.concatenate(
        [jnp.broadcast_to(reference, (len(labels), before)), labels], axis=1
    )  # fmt: skip
    in_picture = jnp.arange(keys.shape[1]) >= before
    subject = masks.from_array((labels > 0)[:, None, :, None])
    background = masks.padding((keys == 0) & in_picture)
    # In the picture the background sees all, and all see it; the reference is of its subject alone.
    sees_all = ~subject & masks.padding(in_picture[None])
    own = masks.segments(labels, keys) & (subject | masks.padding(in_picture[None]))
    return own | background | sees_all


def isolation_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    labels: Int[Array, "#b t"],
    *,
    reference: tuple[Float[Array, "b r g d"], Float[Array, "b r g e"], Int[Array, "#b r"]]
    | None = None,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """Attention of a picture to itself and to a reference, subject by subject.

    Args:
        query, key, value: of the picture's tokens; g divides h.
        labels: of those.
        reference: keys, values and labels of the reference's tokens.
        scale: of the scores; default `d**-0.5`.

    Reference:
        arXiv 2411.19261.

    Example:
        >>> x = jnp.ones((1, 3, 2, 4))
        >>> isolation_attention(x, x, x, jnp.array([[0, 1, 2]])).shape
        (1, 3, 2, 4)
    """
    if reference is None:
        return attend(query, key, value, mask=isolation_mask(labels), scale=scale)
    keys, values, theirs = reference
    key, value = jnp.concatenate([keys, key], axis=1), jnp.concatenate([values, value], axis=1)
    return attend(query, key, value, mask=isolation_mask(labels, theirs), scale=scale)


def reposition(
    reference: Float[Array, "y x c"], source: Box, target: Box, shape: tuple[int, int]
) -> Float[Array, "Y X c"]:
    """A box of the reference, resized to another and put there; zeros elsewhere.

    Args:
        reference: features.
        source: the subject's box there: first row, first column, rows, columns.
        target: its box in the picture.
        shape: rows and columns of the picture.

    Raises:
        ValueError: a box that is not inside its picture.

    Reference:
        arXiv 2411.19261.

    Example:
        >>> image = jnp.ones((2, 2, 1))
        >>> reposition(image, (0, 0, 1, 1), (1, 1, 2, 1), (3, 3))[..., 0].sum().item()
        2.0
    """
    for name, box, size in (("source", source, reference.shape[:2]), ("target", target, shape)):
        fits = all(
            box[axis] >= 0 and box[axis] + box[axis + 2] <= size[axis] and box[axis + 2] > 0
            for axis in (0, 1)
        )
        if not fits:
            raise ValueError(f"{name}: expected a box inside {tuple(size)}, got {tuple(box)}")
    y, x, rows, columns = source
    part = reference[y : y + rows, x : x + columns]
    size = (target[2], target[3], reference.shape[2])
    if part.shape != size:
        part = jax.image.resize(part, size, "bilinear", antialias=False)
    canvas = jnp.zeros((*shape, reference.shape[2]), reference.dtype)
    return canvas.at[target[0] : target[0] + size[0], target[1] : target[1] + size[1]].set(part)
