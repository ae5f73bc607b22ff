"""What `attend` was asked, checked and brought to one form; every backend takes a `Case`."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jattn.attention.masks import Mask, as_mask
from jattn.attention.normalizers import Normalizer, as_normalizer
from jattn.attention.planes import as_plane
from jattn.attention.scores import ScoreMod
from jattn.checks import check_shape


class Case(NamedTuple):
    """One call of `attend`.

    `bias` and `normalizer.shift` have four axes, `sink` is `[#b, h, #t]`, `scale` is a float or a
    scalar array. `dtype` is the one computed and accumulated in: float32, or float64 for float64
    inputs.
    """

    query: Array
    key: Array
    value: Array
    mask: Mask | None
    bias: Array | None
    score_mod: ScoreMod | None
    normalizer: Normalizer
    sink: Array | None
    scale: float | Array
    return_lse: bool
    return_weights: bool
    dtype: DTypeLike


def make_case(
    query, key, value, *, mask: Any = None, bias: Any = None, score_mod: ScoreMod | None = None,
    normalizer: str | Normalizer = "softmax", sink: Any = None, scale: Any = None,
    return_lse: bool = False, return_weights: bool = False,
) -> Case:  # fmt: skip
    """Checks the arguments of `attend`.

    Raises:
        ValueError: one line that names the argument, what was expected and what came.
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b s gk d", sizes)
    check_shape("value", value, "b s gv e", sizes)
    b, t, h, s = (sizes[letter] for letter in "bths")
    for name, groups in (("key", sizes["gk"]), ("value", sizes["gv"])):
        if groups == 0 or h % groups:
            raise ValueError(f"{name}: expected heads that divide query's {h}, got {groups}")
    for name, array in (("query", query), ("key", key), ("value", value)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name}: expected a floating dtype, got {array.dtype}")
    dtype = jnp.promote_types(jnp.result_type(query, key, value), jnp.float32)

    if mask is not None:
        mask = as_mask(mask)
        mask.check(b, h, t, s)
    if bias is not None:
        bias = jnp.asarray(bias)
        if not jnp.issubdtype(bias.dtype, jnp.floating):
            raise ValueError(f"bias: expected a floating dtype, got {bias.dtype}")
        bias = as_plane("bias", bias, b, h, t, s)
    rule = as_normalizer(normalizer)
    if rule.shift is not None:
        shift = as_plane("normalizer (shift)", rule.shift, b, h, t, s)
        rule = rule._replace(shift=shift)
    if return_lse and not rule.divide:
        raise ValueError(
            f"return_lse: expected a normalizer that divides by a row sum, got {rule.name!r}"
        )
    if sink is not None:
        if not rule.divide:
            raise ValueError(
                f"sink: expected a normalizer that divides by a row sum, got {rule.name!r}"
            )
        sink = jnp.asarray(sink)
        if sink.ndim == 3:
            check_shape("sink", sink, "b t h", sizes)
            sink = jnp.swapaxes(sink, 1, 2)
        elif sink.ndim:
            check_shape("sink", sink, "h", sizes)
            sink = sink[None, :, None]
        else:
            sink = jnp.full((1, h, 1), sink)
        sink = sink.astype(dtype)
    if scale is None:
        scale = sizes["d"] ** -0.5
    elif jnp.ndim(scale):
        raise ValueError(f"scale: expected a number, got shape {list(jnp.shape(scale))}")
    return Case(
        query, key, value, mask, bias, score_mod, rule, sink,
        scale, return_lse, return_weights, dtype,
    )  # fmt: skip


def apply_score_mod(score_mod: ScoreMod, score: Array, q_index: Array, k_index: Array) -> Array:
    """Calls a modification on a tile `[b, h, q, k]` with indices that broadcast against it."""
    b, h = score.shape[:2]
    batch = jnp.arange(b, dtype=jnp.int32)[:, None, None, None]
    head = jnp.arange(h, dtype=jnp.int32)[None, :, None, None]
    out = score_mod(score, batch, head, q_index[None, None, :, None], k_index[None, None, None, :])
    if jnp.shape(out) != score.shape:
        raise ValueError(
            f"score_mod: expected the shape of its score {list(score.shape)}, "
            f"got {list(jnp.shape(out))}; arrays it uses must be looked up by index"
        )
    return out.astype(score.dtype)


def hide_nonfinite(key: Array, value: Array, heads: int) -> tuple[Array, Array, Array]:
    """Takes NaN and infinity out of keys and values that a mask may hide.

    0 * NaN is NaN, so a weight of zero does not keep a bad value out of a product, nor a gradient
    of zero a bad key. The third result has NaN at bad keys: added to the scores before they are
    masked, it makes rows that do attend to one NaN, and leaves all others alone.

    Args:
        key: `[b, gk, s, d]`.
        value: `[b, gv, s, e]`.
        heads: the number h of query heads.

    Returns:
        key and value with zeros instead, and a `[b, h, 1, s]` addend of zeros and NaN.
    """
    good = jnp.ones((), bool)
    clean = []
    for array in (key, value):
        finite = jnp.isfinite(array)
        clean.append(jnp.where(finite, array, 0))
        good &= jnp.repeat(finite.all(-1), heads // array.shape[1], axis=1)
    return clean[0], clean[1], jnp.where(good, 0.0, jnp.nan).astype(key.dtype)[:, :, None, :]
