"""Losses of attention maps, as pure functions of them: what should overlap, and what should not.

A map is any array of non-negative numbers over places. With

    soft_overlap(a, b) = sum min(a, b) / sum (a + b)  in [0, 1/2]     o = iou / (1 + iou)
    soft_iou(a, b)     = sum min(a, b) / sum max(a, b)  in [0, 1]

    segregation        A-STAR         mean over pairs of the overlap            arXiv 2306.14544
    retention          A-STAR         1 - overlap with where a map was          arXiv 2306.14544
    anti_segregation   anagrams       |1/2 - margin - overlap|                  arXiv 2412.02693
    diversity          ACMIL, TextPixs   mean over pairs of the cosine          arXiv 2311.07125
    localization       FastComposer   mean outside a mask - mean inside         arXiv 2305.10431
    alignment          CAA            distance to a target that gets no gradient   arXiv 2509.11090
    attention_distance CD-FSOD        mean distance looked at                   arXiv 2603.18541
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_choice, check_shape
from jattn.extremes import largest


def soft_overlap(
    a: Float[Array, "*batch n"], b: Float[Array, "*batch n"]
) -> Float[Array, "*batch"]:
    """`sum min(a, b) / sum (a + b)`: 0 where maps are disjoint, 1/2 where they are equal.

    Maps that are zero throughout overlap by 0.

    Example:
        >>> soft_overlap(jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0])).item()
        0.25
    """
    return _ratio(jnp.minimum(a, b).sum(-1), (a + b).sum(-1))


def soft_iou(a: Float[Array, "*batch n"], b: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """`sum min(a, b) / sum max(a, b)`: 0 where maps are disjoint, 1 where they are equal.

    Example:
        >>> round(float(soft_iou(jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0]))), 4)
        0.3333
    """
    return _ratio(jnp.minimum(a, b).sum(-1), jnp.maximum(a, b).sum(-1))


def _ratio(part, whole):
    some = whole > 0
    return jnp.where(some, part / jnp.where(some, whole, 1), 0)


def segregation(maps: Float[Array, "*batch k n"]) -> Float[Array, "*batch"]:
    """Sum over pairs of k maps of their soft overlap; 0 of a single one.

    Args:
        maps: `[..., k, n]`, of k concepts over n places.

    Reference:
        arXiv 2306.14544.

    Example:
        >>> segregation(jnp.ones((3, 4))).item()
        1.5
    """
    first, second = np.triu_indices(maps.shape[-2], 1)
    return soft_overlap(maps[..., first, :], maps[..., second, :]).sum(-1)


def retention(
    maps: Float[Array, "*batch k n"], masks: Float[Array, "*batch k n"]
) -> Float[Array, "*batch"]:
    """Sum over maps of `1 - overlap` with masks of where they were before, each in [1/2, 1].

    Args:
        maps: `[..., k, n]`, of k concepts over n places.
        masks: 1 where a concept's map was high at an earlier step, else 0.

    Reference:
        arXiv 2306.14544.

    Example:
        >>> retention(jnp.ones((2, 4)), jnp.ones((2, 4))).item()
        1.0
    """
    return (1 - soft_overlap(maps, masks)).sum(-1)


def anti_segregation(
    maps: Float[Array, "*batch k n"], *, margin: float = 0.05
) -> Float[Array, "*batch"]:
    """Mean over pairs of `|1/2 - margin (k - 1) - overlap|`: views should nearly coincide.

    Args:
        maps: `[..., k, n]`, of k views, mapped back into one frame of n places.
        margin: how far below the largest overlap it aims, for each view beyond the first.

    Returns:
        0 of a single view.

    Reference:
        arXiv 2412.02693.

    Example:
        >>> round(float(anti_segregation(jnp.ones((2, 4)))), 4)
        0.05
    """
    views = maps.shape[-2]
    first, second = np.triu_indices(views, 1)
    aim = 0.5 - margin * (views - 1)
    overlap = soft_overlap(maps[..., first, :], maps[..., second, :])
    return jnp.abs(aim - overlap).sum(-1) / max(len(first), 1)


def diversity(maps: Float[Array, "*batch k n"]) -> Float[Array, "*batch"]:
    """Mean over pairs of k maps of their cosine: 1 where all are alike, 0 of a single one.

    Reference:
        arXiv 2311.07125; of characters, arXiv 2507.06033.

    Example:
        >>> diversity(jnp.eye(3)).item(), diversity(jnp.ones((3, 4))).item()
        (0.0, 1.0)
    """
    first, second = np.triu_indices(maps.shape[-2], 1)
    square = (maps**2).sum(-1, keepdims=True)
    units = maps * jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
    return (units[..., first, :] * units[..., second, :]).sum((-1, -2)) / max(len(first), 1)


def localization(
    maps: Float[Array, "b h n s"],
    masks: Float[Array, "b k n"],
    tokens: Int[Array, "b k"],
    valid: Bool[Array, "b k"],
    *,
    normalize: bool = False,
    eps: float = 1e-5,
) -> Float[Array, ""]:
    """Mean attention outside an object's mask less that inside, of one layer.

    Args:
        maps: cross-attention of n places to s tokens, summing to one over tokens.
        masks: of k objects, in [0, 1], at the resolution of the maps; see `resized_masks`.
        tokens: the index of each object's token.
        valid: False where there is no such object; it counts nothing.
        normalize: divide each object's map by its largest number first.
        eps: added to every denominator.

    Returns:
        Mean over batch and heads of the mean over objects, in [-1, 1].

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2305.10431.

    Example:
        >>> maps = jnp.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 4, 1)
        >>> mask = jnp.array([[[1.0, 1.0, 0.0, 0.0]]])
        >>> some, first = jnp.ones((1, 1), bool), jnp.zeros((1, 1), int)
        >>> round(float(localization(maps, mask, first, some)), 3)
        -1.0
    """
    sizes: dict[str, int] = {}
    check_shape("maps", maps, "b h n s", sizes)
    check_shape("masks", masks, "b k n", sizes)
    check_shape("tokens", tokens, "b k", sizes)
    check_shape("valid", valid, "b k", sizes)
    of_object = jnp.take_along_axis(maps, tokens[:, None, None, :], axis=3).swapaxes(2, 3)
    if normalize:
        of_object = of_object / (largest(of_object, -1) + eps)
    inside, outside = masks[:, None], 1 - masks[:, None]
    share = lambda where: (of_object * where).sum(-1) / (where.sum(-1) + eps)
    gap = jnp.where(valid[:, None], share(outside) - share(inside), 0)
    return (gap.sum(-1) / (valid.sum(-1)[:, None] + eps)).mean()


def resized_masks(masks: Float[Array, "*batch y x"], side: int) -> Float[Array, "*batch n"]:
    """Masks at the resolution of a layer, linearly interpolated and antialiased, flat.

    Args:
        masks: in [0, 1].
        side: rows and columns of the layer's maps.

    Example:
        >>> resized_masks(jnp.ones((1, 8, 8)), 4).shape
        (1, 16)
    """
    shape = (*masks.shape[:-2], side, side)
    return jax.image.resize(masks, shape, "linear", antialias=True).reshape(*shape[:-2], -1)


def alignment(
    attention: Float[Array, "*batch n"],
    saliency: Float[Array, "*batch n"],
    *,
    distance: str = "squared",
) -> Float[Array, "*batch"]:
    """Distance of learned attention to a saliency that gets no gradient, both summing to one.

    Args:
        attention: of each place.
        saliency: the target, as of `control_saliency`.
        distance: `"squared"`, the mean of squares, or `"kl"`, `sum s ln(s / a)`.

    Reference:
        arXiv 2509.11090.

    Example:
        >>> alignment(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])).item()
        0.25
    """
    check_choice("distance", distance, ("squared", "kl"))
    target = jax.lax.stop_gradient(saliency)
    if distance == "squared":
        return ((attention - target) ** 2).mean(-1)
    ratio = jnp.log(jnp.maximum(target, 1e-30)) - jnp.log(jnp.maximum(attention, 1e-30))
    return jnp.where(target > 0, target * ratio, 0).sum(-1)


def control_saliency(
    policy: Callable[[Float[Array, "n c"]], Array],
    z: Float[Array, "n c"],
    *,
    reduce: str = "norm",
) -> Float[Array, " n"]:
    """Where a policy's outputs, not its loss, depend on features; summing to one.

    A loss has no gradient where it is met; what the controls depend on, they depend on still.

    Args:
        policy: from features to controls.
        z: features of n places.
        reduce: `"norm"`, the length of the gradient at each place, or `"grad_cam"`,
            `relu(z . mean gradient)`.

    Returns:
        For each place; zeros where the controls depend on none.

    Reference:
        arXiv 2509.11090.

    Example:
        >>> control_saliency(lambda z: 3 * z[1], jnp.ones((3, 2))).tolist()
        [0.0, 1.0, 0.0]
    """
    check_choice("reduce", reduce, ("norm", "grad_cam"))
    gradient = jax.grad(lambda z: policy(z).sum())(z)
    if reduce == "norm":
        found = jnp.linalg.norm(gradient, axis=-1)
    else:
        found = jax.nn.relu(z @ gradient.mean(0))
    return _ratio(found, found.sum())


def attention_distance(
    maps: Float[Array, "*batch n s"], places: Float[Array, "n d"]
) -> Float[Array, "*batch"]:
    """Mean over queries of how far away they look, `sum_j A_ij |p_i - p_j|`.

    Args:
        maps: of n patches to the same, rows summing to one.
        places: their coordinates.

    Reference:
        arXiv 2603.18541.

    Example:
        >>> attention_distance(jnp.eye(4), jnp.arange(4.0)[:, None]).item()
        0.0
    """
    apart = places[:, None] - places
    square = (apart**2).sum(-1)
    far = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return (maps * far).sum((-1, -2)) / maps.shape[-2]


def mean_over_layers(losses: Sequence[Float[Array, ""]]) -> Float[Array, ""]:
    """The mean of losses of layers, whose maps may differ in size."""
    return jnp.stack(list(losses)).mean()
