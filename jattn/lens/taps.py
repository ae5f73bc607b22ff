"""What `run` puts into each layer: it applies edits, keeps records, and goes dense if it must."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention import attend
from jattn.lens.edits import DENSE, Bias, Edit
from jattn.nn.taps import Taps


class LensTaps(Taps):
    """Taps of one layer.

    Args:
        layer: its index, an array of a scan or a number.
        edits: applied in order.
        record: sites to keep, as they are after the edits.
    """

    def __init__(self, layer: Any, edits: Sequence[Edit], record: Sequence[str]):
        super().__init__()
        self.layer, self.edits, self.record = layer, tuple(edits), tuple(record)
        self.seen: dict[str, Any] = {}

    def __call__(self, site: str, value: Any) -> Any:
        """The value after the edits of its site."""
        given = value
        for edit in self.edits:
            if edit.site == site:
                value = _edited(edit, value, self.layer, self.seen)
        if value is not given:
            value = value.astype(given.dtype)
        self.seen[site] = value
        if site in self.record:
            self.records[site] = value
        return value

    def attend(self, query, key, value, mask):
        """Heads' reads: by the fused engine, unless a site within is looked at or changed."""
        self.seen["mask"] = mask
        if not dense_sites(self.edits, self.record):
            biases = [e.logit_bias(self.layer) for e in self.edits if isinstance(e, Bias)]
            bias = sum(biases[1:], start=biases[0]) if biases else None
            return attend(query, key, value, mask=mask, bias=bias)
        logits = self("logits", scores(query, key))
        # The engine's own softmax, of these logits: queries of zero leave the bias alone.
        options: Any = dict(return_weights=True, implementation="reference")
        nothing = jnp.zeros_like(query)
        z, probs = attend(nothing, key, value, mask=mask, bias=logits, **options)
        edited = self("probs", probs)
        return z if edited is probs else aggregate(edited, value).astype(z.dtype)


def _edited(edit: Edit, value: Array, layer: Any, seen: dict[str, Any]) -> Array:
    """The value after an edit, which keeps its shape."""
    said = f"edits: {type(edit).__name__} at {edit.site}"
    try:
        new = edit(value, layer, seen)
    except (TypeError, ValueError) as error:  # of arrays that do not broadcast
        first = str(error).split("\n")[0][:160]
        raise ValueError(f"{said}: it does not fit {list(value.shape)}: {first}") from error
    if new.shape != value.shape:
        expected, got = list(value.shape), list(new.shape)
        raise ValueError(f"{said}: expected a value of shape {expected}, got {got}")
    return new


def dense_sites(edits: Sequence[Edit], record: Sequence[str]) -> list[str]:
    """Sites that make attention hold `[b, h, t, s]`: those recorded, and edits that are no bias."""
    edited = {edit.site for edit in edits if not isinstance(edit, Bias)}
    return [site for site in DENSE if site in edited or site in record]


def scores(query: Float[Array, "b t h d"], key: Float[Array, "b s g d"]) -> Float[Array, "b h t s"]:
    """Scaled products of queries and keys, `q.k d^-0.5`, of grouped heads."""
    b, t, h, d = query.shape
    g = key.shape[2]
    grouped = query.reshape(b, t, g, h // g, d) * d**-0.5
    wide = jnp.promote_types(query.dtype, jnp.float32)
    products = jnp.einsum(
        "btgrd,bsgd->bgrts", grouped, key, precision="highest", preferred_element_type=wide
    )
    return products.reshape(b, h, t, key.shape[1])


def aggregate(
    probs: Float[Array, "b h t s"], value: Float[Array, "b s g e"]
) -> Float[Array, "b t h e"]:
    """Sums of values by given weights, of grouped heads."""
    b, h, t, s = probs.shape
    g, e = value.shape[2:]
    grouped = probs.reshape(b, g, h // g, t, s)
    z = jnp.einsum("bgrts,bsge->btgre", grouped, value.astype(probs.dtype), precision="highest")
    return z.reshape(b, t, h, e)
