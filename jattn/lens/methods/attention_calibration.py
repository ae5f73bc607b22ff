"""ACT: attention calibration, which takes weight off all sinks but the first (arXiv 2406.15765).

With alpha_k the mean weight that key k gets from the rows that see it, S the keys with
alpha_k > threshold, less the first of them, and s_q the weight of row q on S:

    p'_qk = keep p_qk  on S,      p'_qk = p_qk (1 + (1 - keep) s_q / (1 - s_q))  elsewhere

What is freed goes to all other keys, the first token too, in proportion to what they have. A row
with all its weight on S stays. The authors' code leaves the first two layers and the last alone.
"""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_number
from jattn.lens.edits import At, move_budget
from jattn.lens.methods.method import Method, example_maps
from jattn.lens.sinks import importance

PROTECTED = ("first_sink", "first_token")


def calibrated_sinks(
    probs: Float[Array, "*batch t t"],
    threshold: Float[Array, "..."] | float = 0.1,
    protect: Literal["first_sink", "first_token"] = "first_sink",
) -> Bool[Array, "*batch t"]:
    """The sinks of each head that are calibrated: all but the one that is protected."""
    check_choice("protect", protect, PROTECTED)
    sinks = importance(probs) > threshold
    if protect == "first_token":
        return sinks.at[..., 0].set(False)
    return sinks & (jnp.cumsum(sinks, -1) > 1)


def attention_calibration(
    probs: Float[Array, "*batch h t t"],
    *,
    keep: Float[Array, ""] | float = 0.4,
    threshold: Float[Array, ""] | float = 0.1,
    heads: Bool[Array, " h"] | None = None,
    protect: Literal["first_sink", "first_token"] = "first_sink",
) -> Float[Array, "*batch h t t"]:
    """Calibrated maps.

    Args:
        probs: causal maps.
        keep: share that stays on sinks, in [0, 1]; the paper's beta.
        threshold: of alpha; the paper has 5 / t, its code 0.1.
        heads: which are calibrated; default all.
        protect: what is no sink here: the first that is found, or the first token.

    Example:
        >>> p = jnp.array([[[1.0, 0, 0], [0.4, 0.6, 0], [0.4, 0.4, 0.2]]])
        >>> attention_calibration(p, keep=0.0, threshold=0.3)[0, 2].round(3).tolist()[1]
        0.0
    """
    check_number("keep", keep, least=0)
    sinks = calibrated_sinks(probs, threshold, protect)[..., None, :]
    moved = move_budget(probs, sinks, ~sinks, keep)
    return moved if heads is None else jnp.where(heads[:, None, None], moved, probs)


def calibration_edit(
    heads: Bool[Array, "L h"],
    *,
    keep: Float[Array, ""] | float = 0.4,
    threshold: Float[Array, ""] | float = 0.1,
    protect: Literal["first_sink", "first_token"] = "first_sink",
) -> At:
    """Calibration of some heads of each layer, with sinks found in every text anew.

    The search of heads of the paper is one `vmap` or `over_edits` of single heads.
    """
    check_choice("protect", protect, PROTECTED)
    numbers = jnp.full((1,), keep), jnp.full((1,), threshold)
    function = {"first_sink": _but_first_sink, "first_token": _but_first_token}[protect]
    return At("probs", function, (jnp.asarray(heads), *numbers))


def _but_first_sink(probs: Any, data: Any, seen: Any) -> Array:
    heads, keep, threshold = data
    return attention_calibration(probs, keep=keep, threshold=threshold, heads=heads)


def _but_first_token(probs: Any, data: Any, seen: Any) -> Array:
    heads, keep, threshold = data
    return attention_calibration(
        probs, keep=keep, threshold=threshold, heads=heads, protect="first_token"
    )


METHOD = Method(
    name="attention_calibration",
    title="Unveiling and harnessing hidden attention sinks",
    arxiv="2406.15765",
    kind="maps",
    function=attention_calibration,
    example=lambda key: {"probs": example_maps(key, 2, 3, 8, 8)},
    identity={"keep": 1.0},
)
