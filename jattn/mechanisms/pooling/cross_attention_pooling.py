"""Probes by a block of cross-attention: V-JEPA (2404.08471), CAE (2202.03026), SigLIP (2303.15343).

    vjepa    h = u + attend(u, LN(x)),   y = h + MLP(LN(h))
    cae      y = attend(LN_q(u), LN_k(x), LN_v(x)),   no residual, no MLP
    siglip   h = attend(u, x),   y = h + MLP(h)

u are learned queries, and `attend` has projections of query, key, value and output.

Distinctive: a whole transformer block reads the encoder; what the three leave out differs.

Limits: a query projection of zero gives the mean of the values.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import affine, affine_init, mlp, mlp_init, norm, norm_init
from jattn.mechanisms.layers.size_checks import check_heads, largest_divisor
from jattn.mechanisms.mechanism import Mechanism

FORMS = ("vjepa", "cae", "siglip")
PARTS = ("query", "key", "value")


def cross_attention_pooling(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 1,
    form: str = "vjepa",
    eps: float = 1e-6,
) -> Float[Array, "b k m"]:
    """Learned queries through a block of cross-attention.

    Args:
        params: `queries` `[k, m]`; `query`, `key`, `value` and `output`; of `"vjepa"` `norm`,
            `mlp_norm` and `mlp`; of `"cae"` `query_norm`, `key_norm` and `value_norm`; of
            `"siglip"` `mlp`.
        x: the tokens.
        real: False where x is padding; default none is.
        heads: number of heads.
        form: `"vjepa"`, `"cae"` or `"siglip"`.
        eps: of the norms.

    Reference:
        arXiv 2404.08471, 2202.03026, 2303.15343.

    Example:
        >>> params = make(dim=4, form="siglip").init(jax.random.key(0))
        >>> cross_attention_pooling(params, jnp.ones((1, 3, 4)), form="siglip").shape
        (1, 1, 4)
    """
    queries = params["queries"].astype(x.dtype)[None]
    if form == "cae":
        given = (queries, x, x)
        given = [norm(params[f"{of}_norm"], z, eps=eps) for of, z in zip(PARTS, given, strict=True)]
    else:
        seen = norm(params["norm"], x, eps=eps) if form == "vjepa" else x
        given = [queries, seen, seen]
    query, key, value = (affine(params[of], z) for of, z in zip(PARTS, given, strict=True))
    h = affine(params["output"], attentive_pool(query, key, value, real, heads=heads))
    if form == "cae":
        return h
    h = queries + h if form == "vjepa" else h
    return h + mlp(params["mlp"], norm(params["mlp_norm"], h, eps=eps) if form == "vjepa" else h)


def make(
    *, dim: int, heads: int | None = None, form: str = "vjepa", queries: int = 1, ratio: int = 4
) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        heads: a divisor of m; default that of the paper, 12, or of SigLIP 8, or the largest below.
        form: `"vjepa"`, `"cae"` or `"siglip"`.
        queries: learned ones k, and so tokens that come out.
        ratio: of the MLP's width to m.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pool = make(dim=8, heads=2, form="cae")
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    check_choice("form", form, FORMS)
    check_count("dim", dim)
    heads = largest_divisor(dim, 8 if form == "siglip" else 12) if heads is None else heads
    check_heads(dim, heads)
    check_count("queries", queries)
    check_count("ratio", ratio)

    def init(key):
        asked, feed, *keys = jax.random.split(key, 6)
        maps: dict[str, Any] = {
            of: affine_init(k, dim, dim, bias=form != "cae" or of == "output")
            for of, k in zip((*PARTS, "output"), keys, strict=True)
        }
        std = dim**-0.5 if form == "siglip" else 0.02
        maps["queries"] = std * jax.random.truncated_normal(asked, -2, 2, (queries, dim))
        if form == "cae":
            return maps | {f"{of}_norm": norm_init(dim) for of in PARTS}
        maps["mlp"] = mlp_init(feed, dim, ratio * dim)
        if form == "siglip":
            return maps
        for last in (maps["output"], maps["mlp"]["outer"]):  # as V-JEPA's first layer is
            last["weight"] = last["weight"] / jnp.sqrt(2)
        return maps | {"norm": norm_init(dim), "mlp_norm": norm_init(dim)}

    def apply(params, x, real):
        return cross_attention_pooling(params, x, real, heads=heads, form=form)

    return framed_pool("cross_attention_pooling", dim=dim, init=init, apply=apply)


MECHANISM = Mechanism(
    name="cross_attention_pooling",
    title="V-JEPA's attentive probe, and those of CAE and SigLIP",
    arxiv="2404.08471",
    family="pooling",
    equation="h = u + attend(u, LN(x)), y = h + MLP(LN(h))",
    core=cross_attention_pooling,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=(*PARTS, "output", "queries", "norm", "mlp_norm", "mlp"),
)
