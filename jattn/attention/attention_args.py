"""What `attend` was asked, checked and brought to one form; backends take `AttentionArgs`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jattn.attention.dropout import Dropout, make_dropout
from jattn.attention.logits_operands import as_logits_operand
from jattn.attention.masks import Mask, as_mask, query_offset
from jattn.attention.normalizers import Normalizer, as_normalizer
from jattn.attention.scalar_functions import INDEX, ScalarFunction, trace
from jattn.attention.scores import ScoreMod, at_offset
from jattn.checks import as_floating, check_array, check_flag, check_number, check_shape, said

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionArgs:
    """One call of `attend`, as a pytree.

    `bias` and `normalizer.shift` have four axes, `sink` is `[#b, h, #t]`, `scale` is a float or a
    scalar array. `score_function` is the score modification at the mask's offset, traced on
    scalars, and `closed_over` what it closes over. `dtype` is the one computed and accumulated in:
    float32, or float64 for float64 inputs. `out_dtype` is that of the output.
    """

    query: Array
    key: Array
    value: Array
    mask: Mask | None
    bias: Array | None
    closed_over: tuple[Any, ...]
    normalizer: Normalizer
    sink: Array | None
    scale: float | Array
    dropout: Dropout | None
    score_function: ScalarFunction | None = dataclasses.field(metadata=_STATIC)
    return_lse: bool = dataclasses.field(metadata=_STATIC)
    return_weights: bool = dataclasses.field(metadata=_STATIC)
    dtype: DTypeLike = dataclasses.field(metadata=_STATIC)
    out_dtype: DTypeLike = dataclasses.field(metadata=_STATIC)


def bind(
    query, key, value, *, mask: Any = None, bias: Any = None, score_mod: ScoreMod | None = None,
    normalizer: str | Normalizer = "softmax", sink: Any = None, scale: Any = None,
    dropout_rate: Any = 0.0, dropout_key: Any = None,
    return_lse: bool = False, return_weights: bool = False,
) -> AttentionArgs:  # fmt: skip
    """Checks the arguments of `attend`.

    Raises:
        ValueError: one line that names the argument, what was expected and what came.
    """
    sizes: dict[str, int] = {}
    arrays = {"query": query, "key": key, "value": value}
    for name, axes in (("query", "b t h d"), ("key", "b s gk d"), ("value", "b s gv e")):
        check_array(name, arrays[name], "floating")
        check_shape(name, arrays[name], axes, sizes)
    b, t, h, s = (sizes[letter] for letter in "bths")
    for name, groups in (("key", sizes["gk"]), ("value", sizes["gv"])):
        if groups == 0 or h % groups:
            raise ValueError(f"{name}: expected heads that divide query's {h}, got {groups}")
    check_flag("return_lse", return_lse)
    check_flag("return_weights", return_weights)
    out_dtype = query.dtype
    # Floats of 8 bits and less promote to nothing; bfloat16 holds them exactly.
    query, key, value = (
        x.astype(jnp.bfloat16) if x.dtype.itemsize < 2 else x for x in (query, key, value)
    )
    dtype = jnp.promote_types(jnp.result_type(query, key, value), jnp.float32)

    if mask is not None:
        mask = as_mask(mask).fit(b, h, t, s)
    bias = make_bias(bias, b, h, t, s)
    rule = as_normalizer(normalizer)
    if rule.shift is not None:
        shift = as_logits_operand("normalizer (shift)", rule.shift, b, h, t, s)
        rule = dataclasses.replace(rule, shift=shift)
    if return_lse and not rule.divide:
        raise ValueError(
            f"return_lse: expected a normalizer that divides by a row sum, got {rule.name!r}"
        )
    if sink is not None:
        if not rule.divide:
            raise ValueError(
                f"sink: expected a normalizer that divides by a row sum, got {rule.name!r}"
            )
        sink = make_sink(sink, sizes).astype(dtype)
    function, closed_over = None, []
    if score_mod is not None:
        if not callable(score_mod):
            raise ValueError(
                "score_mod: expected a function (score, batch, head, q_index, k_index) -> score, "
                f"got {said(score_mod)}"
            )
        score_mod = at_offset(score_mod, lambda: query_offset(mask))
        function, closed_over = trace_score_mod(score_mod, dtype)
    return AttentionArgs(
        query, key, value, mask, bias, tuple(closed_over), rule, sink,
        make_scale(scale, sizes["d"]), make_dropout(dropout_rate, dropout_key, b, h),
        function, return_lse, return_weights, jnp.dtype(dtype), jnp.dtype(out_dtype),
    )  # fmt: skip


def make_bias(bias: Any, b: int, h: int, t: int, s: int) -> Array | None:
    """A bias with four axes, or None."""
    if bias is None:
        return None
    return as_logits_operand("bias", as_floating("bias", bias), b, h, t, s)


def make_sink(sink: Any, sizes: dict[str, int]) -> Array:
    """A sink as `[#b, h, #t]`."""
    sink = as_floating("sink", sink)
    if sink.ndim == 3:
        check_shape("sink", sink, "b t h", sizes)
        return jnp.swapaxes(sink, 1, 2)
    if sink.ndim:
        check_shape("sink", sink, "h", sizes)
        return sink[None, :, None]
    return jnp.full((1, sizes["h"], 1), sink)


def make_scale(scale: Any, d: int) -> float | Array:
    """The scale of scores; d^-0.5 where none is given."""
    if scale is None:
        return d**-0.5 if d else 1.0
    if getattr(scale, "ndim", 0):
        raise ValueError(f"scale: expected a number, got shape {list(scale.shape)}")
    check_number("scale", scale)
    return scale if isinstance(scale, jax.Array) else float(scale)


def trace_score_mod(score_mod: ScoreMod, dtype: DTypeLike) -> tuple[ScalarFunction, list[Any]]:
    """A modification of a score of that dtype, whatever dtype it returns."""
    score = jax.ShapeDtypeStruct((), dtype)

    def in_dtype(score, *indices):
        out = score_mod(score, *indices)
        return out.astype(dtype) if isinstance(out, jax.Array) else jnp.asarray(out, dtype)

    return trace("score_mod", in_dtype, score, *[INDEX] * 4)


def modify(args: AttentionArgs, score: Array, q_index: Array, k_index: Array) -> Array:
    """The score modification of a tile of scores `[b, h, q, k]`."""
    assert args.score_function is not None
    b, h = (jnp.arange(size, dtype=jnp.int32) for size in score.shape[:2])
    return args.score_function.over_tile(args.closed_over, q_index, k_index, b, h, score)
