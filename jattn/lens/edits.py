"""Edits: what is changed inside a model, as data that one can batch and differentiate.

An edit belongs to a site. Its arrays have layers in front, `[L, ...]`, or 1 where all layers share
them, so all single-head ablations of a model are one array more and one `vmap`.

Sites of a layer, in order; h query heads, g key-value heads (query head i reads i // (h / g)):

    resid_pre                   [b, t, m]      the residual stream in front
    q_pre, k_pre                [b, t, h, d]   queries, keys (g of them) before rotation
    q, k, v                     [b, t, h, d]   ready to be compared; values
    logits                      [b, h, t, s]   scale * q.k, before the mask: no edit can unmask
    probs                       [b, h, t, s]   after the softmax; 0 where masked
    z                           [b, t, h, d]   what heads read, before the output projection
    attn_out, resid_mid         [b, t, m]      what is added, and the stream then
    mlp_out, resid_post         [b, t, m]      the same of the MLP
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

SITES = (
    "resid_pre", "q_pre", "k_pre", "q", "k", "v", "logits", "probs", "z", "attn_out", "resid_mid",
    "mlp_out", "resid_post",
)  # fmt: skip
Class = TypeVar("Class")
# Sites that a fused engine never holds.
DENSE = ("logits", "probs")


def of_layer(arrays: Any, layer: Any) -> Any:
    """A layer's part of arrays `[L, ...]`, or of those `[1, ...]` that all layers share."""
    return jax.tree.map(lambda x: x[0] if len(x) == 1 else jnp.asarray(x)[layer], arrays)


class Edit:
    """What is common to edits: `edit(value, layer, seen) -> value`, at one site.

    `seen` holds the values of the layer's sites so far, after their edits, and its `mask`.
    """

    site: Any

    def __call__(self, value: Array, layer: Any, seen: Mapping[str, Any]) -> Array:
        """The site's new value."""
        raise NotImplementedError

    def arrays(self) -> dict[str, Any]:
        """The edit's arrays by name, for checks."""
        names = [f.name for f in dataclasses.fields(self) if not f.metadata.get("static")]  # type: ignore
        return {name: getattr(self, name) for name in names}


def _static(*, default: Any = dataclasses.MISSING) -> Any:
    """A field that is no child of the pytree."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(_static, dataclasses.field))
def _edit(cls: type[Class]) -> type[Class]:
    """A frozen dataclass that is a pytree."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@_edit
class HeadAffine(Edit):
    """`z' = (1 + scale) z + shift`: ablation, scaling, steering of heads.

    Attributes:
        scale: A, broadcastable to `[L, b, t, h, d]` without its axes b and t: `[L, h, d]` or
            `[L, h, 1]`; of other sites `[L, m]`.
        shift: B, the same; default 0.
        where: positions that are edited, `[1, b, t]` or `[1, 1, t]`; default all.
        site: `"z"`, or another one.

    Example:
        >>> silence = HeadAffine(jnp.full((1, 2, 1), -1.0))
        >>> float(silence(jnp.ones((1, 3, 2, 4)), 0, {}).max())
        0.0
    """

    scale: Any
    shift: Any = None
    where: Any = None
    site: str = _static(default="z")

    def __call__(self, value, layer, seen):
        new = value * (1 + of_layer(self.scale, layer))
        if self.shift is not None:
            new = new + of_layer(self.shift, layer)
        return _where(of_layer(self.where, layer), new, value)


@_edit
class ResidAdd(Edit):
    """`x' = x + strength * vector`: steering, injected concepts, trained bias vectors.

    Attributes:
        vector: `[L, m]`; of other sites any shape behind L that broadcasts.
        strength: a number, or `[L]`.
        where: as of `HeadAffine`.
        site: `"resid_post"`, or another one.
    """

    vector: Any
    strength: Any = 1.0
    where: Any = None
    site: str = _static(default="resid_post")

    def __call__(self, value, layer, seen):
        strength = jnp.atleast_1d(jnp.asarray(self.strength, value.dtype))
        added = of_layer(strength, layer) * of_layer(self.vector, layer)
        return _where(of_layer(self.where, layer), value + added, value)


@_edit
class Replace(Edit):
    """Puts recorded values in place of the model's own where it says: patching and resampling.

    Attributes:
        value: as `run` records a site, `[L, ...]`.
        where: True = replaced, broadcastable to it; `heads_of` makes one of heads.
        site: which.
    """

    value: Any
    where: Any
    site: str = _static(default="z")

    def __call__(self, value, layer, seen):
        return jnp.where(of_layer(self.where, layer), of_layer(self.value, layer), value)


class Bias(Edit):
    """An edit of logits that is a sum: fused engines have it as their bias."""

    site = "logits"

    def logit_bias(self, layer: Any) -> Array:
        """What is added in a layer, broadcastable to `[b, h, t, s]`."""
        raise NotImplementedError

    def __call__(self, value, layer, seen):
        return value + self.logit_bias(layer)


@_edit
class LogitBias(Bias):
    """Added to the logits; it stays on the fused engine.

    Attributes:
        bias: broadcastable to `[L, b, h, t, s]`; -inf hides a key.
    """

    bias: Any

    def logit_bias(self, layer):
        return of_layer(self.bias, layer)


@_edit
class KeyReweight(Bias):
    """`p' = p w / sum_s p w`: the same as log w added to the logits, which is how it is done.

    Attributes:
        weight: w >= 0, broadcastable to `[L, b, h, t, s]`; 0 hides a key.

    Example:
        >>> KeyReweight(jnp.ones((1, 1, 1, 1, 3))).logit_bias(0).tolist()
        [[[[0.0, 0.0, 0.0]]]]
    """

    weight: Any

    def logit_bias(self, layer):
        return jnp.log(of_layer(self.weight, layer))


@_edit
class BudgetMove(Edit):
    """Takes a share of the weights on some keys and gives it to others; see `move_budget`.

    Attributes:
        source: keys that give, bool, broadcastable to `[L, b, h, t, s]`.
        target: keys that get, the same.
        keep: share that stays on the source, a number or broadcastable to the same.
        rows: which rows and heads, bool, the same; default all.
    """

    source: Any
    target: Any
    keep: Any
    rows: Any = None
    site: ClassVar[str] = "probs"

    def __call__(self, value, layer, seen):
        source, target = of_layer((self.source, self.target), layer)
        keep = of_layer(jnp.atleast_1d(jnp.asarray(self.keep, value.dtype)), layer)
        moved = move_budget(value, source, target, keep)
        return _rows(self.rows, layer, moved, value)


@_edit
class At(Edit):
    """Any pure function at a site.

    Attributes:
        site: which.
        function: `(value, data, seen) -> value`, one that is defined once: a program is compiled
            for each.
        data: a pytree of arrays `[L, ...]` (or `[1, ...]`), of which it gets the layer's.
    """

    site: str = _static()
    function: Callable[..., Any] = _static()
    data: Any = ()

    def __call__(self, value, layer, seen):
        return self.function(value, of_layer(self.data, layer), seen)


def move_budget(
    probs: Float[Array, "*batch t s"],
    source: Bool[Array, "..."],
    target: Bool[Array, "..."],
    keep: Float[Array, "..."] | float,
) -> Float[Array, "*batch t s"]:
    """Weights with some of them moved; the sums of rows stay.

    With B_q = (1 - keep) sum over source of p_qk, p' is keep p on the source, p elsewhere, and the
    target gets B_q in proportion to what it has. A row whose target has nothing stays as it is.

    Args:
        probs: `[..., t, s]`.
        source, target: keys, broadcastable to it.
        keep: in [0, 1].

    Example:
        >>> p = jnp.array([[0.5, 0.25, 0.25]])
        >>> keys = jnp.arange(3)
        >>> move_budget(p, keys == 0, keys > 0, 0.5).tolist()
        [[0.25, 0.375, 0.375]]
    """
    source, target = jnp.broadcast_to(source, probs.shape), jnp.broadcast_to(target, probs.shape)
    freed = ((1 - keep) * jnp.where(source, probs, 0)).sum(-1, keepdims=True)
    has = jnp.where(target, probs, 0).sum(-1, keepdims=True)
    some = has > 0
    share = jnp.where(target, probs, 0) / jnp.where(some, has, 1)
    moved = probs * jnp.where(source, keep, 1) + freed * share
    return jnp.where(some, moved, probs)


def heads_of(heads: Sequence[tuple[int, int]], layers: int, count: int) -> Bool[Array, "L h"]:
    """A mask of (layer, head) pairs, `[L, h]`.

    Raises:
        ValueError: a layer or a head that there is not.

    Example:
        >>> heads_of([(0, 1)], 2, 3).astype(int).tolist()
        [[0, 1, 0], [0, 0, 0]]
        >>> heads_of([(2, 0)], 2, 3)
        Traceback (most recent call last):
        ...
        ValueError: heads: expected layers 0 to 1 and heads 0 to 2, got (2, 0)
    """
    mask = np.zeros((layers, count), bool)
    for layer, head in heads:
        if not (0 <= layer < layers and 0 <= head < count):
            raise ValueError(
                f"heads: expected layers 0 to {layers - 1} and heads 0 to {count - 1}, "
                f"got ({layer}, {head})"
            )
        mask[layer, head] = True
    return jnp.asarray(mask)


def ablate(heads: Bool[Array, "L h"] | Float[Array, "L h"], mean: Any = None) -> HeadAffine:
    """Silences heads, or leaves the mean of what they read.

    Args:
        heads: which; numbers between 0 and 1 do it in part.
        mean: `[L, h, d]`, of `z` over a data set; default zero.

    Example:
        >>> ablate(heads_of([(0, 1)], 1, 2)).scale.tolist()
        [[[-0.0], [-1.0]]]
    """
    share = jnp.asarray(heads, jnp.float32)[..., None]
    return HeadAffine(-share, None if mean is None else share * mean)


def _where(where: Any, new: Array, value: Array) -> Array:
    if where is None:
        return new
    return jnp.where(where.reshape(*where.shape, *(1,) * (value.ndim - where.ndim)), new, value)


def _rows(rows: Any, layer: Any, new: Array, value: Array) -> Array:
    return new if rows is None else jnp.where(of_layer(rows, layer), new, value)
