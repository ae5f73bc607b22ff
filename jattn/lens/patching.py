"""Patching: what a part carries, by putting in its place what it was on another text.

Clean and corrupt texts have the same length. `metric` is a function of logits, such as the
difference of two; normalised, patching nothing gives 0 and patching everything 1:

    (metric(patched) - metric(corrupt)) / (metric(clean) - metric(corrupt))

References: activation patching arXiv 2202.05262; path patching arXiv 2211.00593 and 2310.08744;
attribution patching arXiv 2310.10348; with integrated gradients arXiv 2403.17806.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_choice, check_count, check_shape
from jattn.lens.edits import Edit, Replace, ResidAdd
from jattn.lens.readouts import Metric
from jattn.lens.run import Model, run

# What is replaced at a time: axes of a record `[L, b, t, ...]`.
UNITS = {"layer": (0,), "position": (0, 2), "head": (0, 3), "head_position": (0, 2, 3)}
HEADS = 3


def over_edits(function: Any, edits: Any, *, batch_size: int) -> Any:
    """A function of many edits in one program, so many at a time as memory allows.

    Args:
        function: of one edit.
        edits: a pytree with an axis in front, all edits.
        batch_size: how many at a time.

    Example:
        >>> over_edits(lambda scale: 2 * scale, jnp.arange(5.0), batch_size=2).tolist()
        [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    check_count("batch_size", batch_size)
    return lax.map(function, edits, batch_size=batch_size)


def activation_patching(
    model: Model,
    clean: Int[Array, "b t"],
    corrupt: Int[Array, "b t"],
    metric: Metric,
    *,
    site: str = "z",
    unit: str = "head",
    batch_size: int = 30,
) -> Float[Array, "..."]:
    """Normalised effect of each part of the clean run put into the corrupt one, all in one program.

    Args:
        model: any that has the site.
        clean, corrupt: texts `[b, t]`.
        metric: of logits.
        site: what is replaced; `z`, `q` and others with heads, or a stream.
        unit: `"head"` gives `[L, h]`, `"layer"` `[L]`, `"position"` `[L, t]` and
            `"head_position"` `[L, t, h]`.
        batch_size: how many are run side by side.

    Raises:
        ValueError: texts of other lengths, or a unit that the site does not have.
    """
    sizes: dict[str, int] = {}
    check_shape("clean", clean, "b t", sizes)
    check_shape("corrupt", corrupt, "b t", sizes)
    check_choice("unit", unit, tuple(UNITS))
    base, found = run(model, clean, record=(site,))
    value = found[site]
    axes = UNITS[unit]
    if HEADS in axes and value.ndim != 5:
        raise ValueError(f"unit: expected one without heads at {site}, got {unit!r}")
    least, most = metric(run(model, corrupt)[0]), metric(base)
    shape = [size if axis in axes else 1 for axis, size in enumerate(value.shape)]
    count = math.prod(shape)

    def effect(index):
        where = (jnp.arange(count) == index).reshape(shape)
        patched = run(model, corrupt, edits=[Replace(value, where, site=site)])[0]
        return (metric(patched) - least) / (most - least)

    effects = over_edits(effect, jnp.arange(count), batch_size=batch_size)
    return effects.reshape([value.shape[axis] for axis in axes])


def patch(
    model: Model,
    tokens: Int[Array, "b t"],
    value: Float[Array, "L b t h d"],
    heads: Bool[Array, "L h"],
    *,
    site: str = "z",
    edits: Sequence[Edit] = (),
) -> Float[Array, "b t vocab"]:
    """Logits with some heads as they were recorded elsewhere, all of them together."""
    where = jnp.asarray(heads)[:, None, None, :, None]
    return run(model, tokens, edits=[Replace(value, where, site=site), *edits])[0]


def path_patching(
    model: Model,
    clean: Int[Array, "b t"],
    corrupt: Int[Array, "b t"],
    metric: Metric,
    senders: Bool[Array, "n L h"],
    *,
    receivers: Bool[Array, "L h"] | None = None,
    site: str = "q",
    freeze_mlps: bool = False,
    batch_size: int = 30,
) -> Float[Array, " n"]:
    """Relative effect of senders on the metric along the paths into receivers alone.

    The clean text is run with the senders as on the corrupt one and all other heads frozen as on
    the clean one; what the receivers then read is put into a clean run. Without receivers it is
    the direct effect on the end.

    Args:
        model: any with `z` and the site.
        clean, corrupt: texts `[b, t]`.
        metric: F, of logits.
        senders: sets of heads, each patched by itself.
        receivers: heads that are reached; None: the last residual stream.
        site: what of the receivers is: `"q"`, `"k"` or `"v"`; keys and values of a group are
            replaced if any of its heads is a receiver.
        freeze_mlps: MLPs as on the clean text, too; else they are computed anew.
        batch_size: senders at a time.

    Returns:
        `(F_patched - F_clean) / F_clean` of each set.

    Reference:
        arXiv 2310.08744, section 3.
    """
    check_choice("site", site, ("q", "k", "v"))
    record = ("z", "mlp_out", site)
    logits, own = run(model, clean, record=record)
    other = run(model, corrupt, record=("z",))[1]["z"]
    base = metric(logits)

    def effect(chosen):
        heads = chosen[:, None, None, :, None]
        everything = jnp.ones((1, 1, 1, 1, 1), bool)
        edits: list[Edit] = [Replace(jnp.where(heads, other, own["z"]), everything)]
        if freeze_mlps:
            edits.append(Replace(own["mlp_out"], everything[..., 0], site="mlp_out"))
        logits, found = run(model, clean, edits=edits, record=() if receivers is None else (site,))
        if receivers is not None:
            groups = found[site].shape[3]
            at = receivers.reshape(len(receivers), groups, -1).any(-1)[:, None, None, :, None]
            logits = run(model, clean, edits=[Replace(found[site], at, site=site)])[0]
        return (metric(logits) - base) / base

    return over_edits(effect, senders, batch_size=batch_size)


def attribution_patching(
    model: Model,
    clean: Int[Array, "b t"],
    corrupt: Int[Array, "b t"],
    metric: Metric,
    *,
    site: str = "z",
    steps: int = 1,
) -> Float[Array, "L ..."]:
    """First-order effect of every part at once: EAP, and with more steps EAP-IG, of nodes.

        score = (x' - x) . 1/m sum_k d metric(x' + k/m (x - x')) / d node

    with x the clean and x' the corrupt value of a node; the gradient is taken on the way from the
    corrupt embedding to the clean one. It estimates metric(corrupt) - metric(clean) by node.

    Args:
        model: any that has the site.
        clean, corrupt: texts `[b, t]`.
        metric: of logits, differentiable.
        site: whose nodes; scores of sites with heads are by head.
        steps: m; 1 is plain attribution patching, with the gradient at the clean text.

    Returns:
        Scores summed over batch, positions and channels: `[L, h]`, or `[L]` of a stream.

    Reference:
        arXiv 2310.10348 (EAP), 2403.17806 (EAP-IG).
    """
    check_count("steps", steps)
    names = tuple(dict.fromkeys((site, "resid_pre")))
    x, y = (run(model, tokens, record=names)[1] for tokens in (clean, corrupt))
    start = jnp.zeros_like(x["resid_pre"]).at[0].set(x["resid_pre"][0] - y["resid_pre"][0])

    def slope(share):
        def of(delta):
            edits = [
                ResidAdd(start, share, site="resid_pre"),
                ResidAdd(delta, site=site),
            ]
            return metric(run(model, corrupt, edits=edits)[0])

        return jax.grad(of)(jnp.zeros_like(x[site]))

    shares = jnp.arange(1, steps + 1) / steps
    mean = lax.map(slope, shares).mean(0)
    product = (y[site] - x[site]) * mean
    axes = (1, 2, 4) if product.ndim == 5 else tuple(range(1, product.ndim))
    return product.sum(axes)
