"""Edits in words, as the viewer's flags have them: `ablate:18.6`, `weigh:0=2@12-29`."""

import re
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from jattn import lens
from jattn.lens.edits import HeadAffine, KeyReweight, heads_of

FORMS = (
    "ablate:LAYER.HEAD[,...]; scale:LAYER.HEAD[,...]=FACTOR; hide:TOKEN[,...][@FROM-TO]; "
    "weigh:TOKEN[,...]=WEIGHT[@FROM-TO]"
)
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"


def parse_edit(text: str, *, layers: int, heads: int, length: int) -> lens.Edit:
    """An edit out of its words.

    Args:
        text: in one of `FORMS`; tokens and layers count from 0, and FROM-TO are layers, both of
            them included; default all.
        layers, heads: of the model.
        length: tokens of the prompt.

    Raises:
        ValueError: other words, or a layer, head or token that there is not.

    Example:
        >>> parse_edit("ablate:1.0", layers=2, heads=2, length=3).scale[..., 0].tolist()
        [[-0.0, -0.0], [-1.0, -0.0]]
    """
    kind, _, rest = text.partition(":")
    if kind not in _KINDS or not rest:
        raise ValueError(f"expected {FORMS}; got {text!r}")
    return _KINDS[kind](text, rest, layers, heads, length)


def _of_heads(text: str, rest: str, layers: int, heads: int, length: int) -> HeadAffine:
    pattern = r"(\d+\.\d+(?:,\d+\.\d+)*)" + (rf"=({_NUMBER})" if text.startswith("scale") else "()")
    found = re.fullmatch(pattern, rest)
    if found is None:
        raise ValueError(f"expected {FORMS}; got {text!r}")
    pairs = [(int(a), int(b)) for a, b in (one.split(".") for one in found[1].split(","))]
    mask = heads_of(pairs, layers, heads)
    factor = float(found[2] or 0)
    return HeadAffine(jnp.asarray(mask, jnp.float32)[..., None] * (factor - 1))


def _of_keys(text: str, rest: str, layers: int, heads: int, length: int) -> KeyReweight:
    weighed = rf"=({_NUMBER})" if text.startswith("weigh") else "()"
    found = re.fullmatch(rf"(\d+(?:,\d+)*){weighed}(?:@(\d+)-(\d+))?", rest)
    if found is None:
        raise ValueError(f"expected {FORMS}; got {text!r}")
    keys = [int(key) for key in found[1].split(",")]
    low, high = (int(found[i] or default) for i, default in ((3, 0), (4, layers - 1)))
    for key in keys:
        if key >= length:
            raise ValueError(f"token of {text!r}: expected 0 to {length - 1}, got {key}")
    if not low <= high < layers:
        raise ValueError(f"layers of {text!r}: expected FROM-TO in 0 to {layers - 1}")
    weight = np.ones((layers, length, length), np.float32)
    weight[low : high + 1, :, keys] = float(found[2] or 0)
    # A token always sees itself: a row with nothing to see would have no weights at all.
    weight[:, np.arange(length), np.arange(length)] = np.maximum(
        weight[:, np.arange(length), np.arange(length)], 1e-6
    )
    return KeyReweight(jnp.asarray(weight)[:, None, None])


_KINDS: dict[str, Callable[..., lens.Edit]] = {
    "ablate": _of_heads,
    "scale": _of_heads,
    "hide": _of_keys,
    "weigh": _of_keys,
}


def parse_edits(texts: Sequence[str], **sizes: int) -> tuple[lens.Edit, ...]:
    """All edits of a command, in order."""
    return tuple(parse_edit(text, **sizes) for text in texts)
