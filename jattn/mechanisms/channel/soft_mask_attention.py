"""Soft masks of video, DeepPhys (Chen and McDuff 2018, arXiv 1805.07888); physFSUNet (2507.07795).

    m = sigmoid(x w + b),   y = x * n m / (2 sum |m|)          over the n places of a frame

One score a place says where the skin is; masks of a frame sum to n / 2, so that brightening one
place dims the others.

Distinctive: normalised by its sum in space, not by a softmax; scaling m changes nothing.

Limits: w = 0 halves everything. `temporal_shift` goes with it: a third of channels one frame
ahead, a third one behind, without parameters.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.affine import affine, affine_init
from jattn.mechanisms.layers.means import count_over_space
from jattn.mechanisms.mechanism import Mechanism


def soft_mask_attention(
    params: dict,
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
) -> Float[Array, "b *space 1"]:
    """`n m / (2 sum m)` of `m = sigmoid(x w + b)`, a factor for each place.

    Args:
        params: `score`, affine to one number.
        x: tokens or images; the frames of a video are rows of a batch.
        real: False where x is padding; default none is.

    Reference:
        arXiv 1805.07888, 2507.07795.

    Example:
        >>> params = {"score": {"weight": jnp.zeros((2, 1)), "bias": jnp.zeros(1)}}
        >>> soft_mask_attention(params, jnp.ones((1, 2, 2))).tolist()
        [[[0.5], [0.5]]]
    """
    mask = jax.nn.sigmoid(affine(params["score"], x))
    shown = mask if real is None else jnp.where(real[..., None], mask, 0)
    total = shown.sum(tuple(range(1, x.ndim - 1)), keepdims=True)
    some = total > 0
    return count_over_space(x, real) * shown / (2 * jnp.where(some, total, 1))


def temporal_shift(
    x: Float[Array, "b t *space c"], *, folds: int = 3
) -> Float[Array, "b t *space c"]:
    """Channels of neighbouring frames: one part comes from the next, another from the last.

    Args:
        x: a video's features, frames second.
        folds: each part is of c / folds channels; 3 in work on pulses, 8 originally.

    Returns:
        As x, zeros where there is no such frame.

    Reference:
        arXiv 1811.08383.

    Example:
        >>> temporal_shift(jnp.array([[[1.0, 10.0, 5.0], [2.0, 20.0, 6.0]]])).tolist()
        [[[2.0, 0.0, 5.0], [0.0, 10.0, 6.0]]]
    """
    check_count("folds", folds, 2)
    part = x.shape[-1] // folds
    ahead, behind, same = jnp.split(x, (part, 2 * part), axis=-1)
    around = [(0, 0)] * x.ndim
    next_one = jnp.pad(ahead[:, 1:], [around[0], (0, 1), *around[2:]])
    last_one = jnp.pad(behind[:, :-1], [around[0], (1, 0), *around[2:]])
    return jnp.concatenate([next_one, last_one, same], axis=-1)


def frame_differences(
    x: Float[Array, "b t *space c"], *, normalized: bool = False
) -> Float[Array, "b t *space c"]:
    """`F_t - F_{t-1}`, 0 at first; normalised, over `F_t + F_{t-1}`, which lights cancel from.

    Example:
        >>> frame_differences(jnp.array([[[1.0], [3.0]]]), normalized=True).tolist()
        [[[0.0], [0.5]]]
    """
    change, both = x[:, 1:] - x[:, :-1], x[:, 1:] + x[:, :-1]
    if normalized:
        change = jnp.where(both == 0, 0, change / jnp.where(both == 0, 1, both))
    return jnp.concatenate([jnp.zeros_like(x[:, :1]), change], axis=1)


def make(*, dim: int) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> gate = make(dim=8)
        >>> gate.factors(gate.init(jax.random.key(0)), jnp.ones((2, 4, 5, 8))).shape
        (2, 4, 5, 1)
    """
    check_count("dim", dim)
    init = lambda key: {"score": affine_init(key, dim, 1)}
    return framed_gate("soft_mask_attention", dim=dim, init=init, factors=soft_mask_attention)


MECHANISM = Mechanism(
    name="soft_mask_attention",
    title="DeepPhys and physFSUNet: soft-mask attention",
    arxiv="1805.07888",
    family="channel",
    equation="y = x * n m / (2 sum m), m = sigmoid(x w + b)",
    core=soft_mask_attention,
    make=make,
    cost="linear",
    kind="gate",
    equivariant=True,
    parameters=("score",),
)
