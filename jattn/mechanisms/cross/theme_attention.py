"""Gated parallel attention of the Theme Transformer (Shih et al. 2021, arXiv 2111.04093).

    S = self-attention(x + P_t),  causal;   X = cross-attention(x + P[l_t], theme, theme)
    parallel   x <- LN(x + (S + g X) / 2)           g_t = [l_t > 0]
    exclusive  x <- LN(x + ((1 - g) S + g X) / 2)
    x <- LN(x + FFN(x))

A label l_t says where in the theme a note of a repeat stands, 0 outside; inside a repeat tokens
read the theme, in exclusive layers it alone. Queries have the place in the theme, so that the k-th
note of a repeat points at the k-th of the theme, wherever the repeat is.

Distinctive: a hard gate that is given, and a position code that is the theme's.

Limits: without labels both are half of causal self-attention; g = 1 is a mean of the two.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

import jattn.attention as engine
from jattn.attention import masks
from jattn.mechanisms.layers.affine import affine, mlp, norm
from jattn.mechanisms.layers.heads import merge_heads, split_heads


def gated_parallel(
    self_read: Float[Array, "b t m"],
    cross_read: Float[Array, "b t m"],
    gate: Bool[Array, "b t"],
    *,
    exclusive: bool = False,
) -> Float[Array, "b t m"]:
    """`(S + g X) / 2`, or, exclusively, `((1 - g) S + g X) / 2`.

    Args:
        self_read, cross_read: S and X.
        gate: g, True inside a theme.
        exclusive: whether those inside leave S out.

    Reference:
        arXiv 2111.04093.

    Example:
        >>> one = jnp.ones((1, 2, 1))
        >>> gated_parallel(one, 3 * one, jnp.array([[True, False]])).ravel().tolist()
        [2.0, 0.5]
    """
    inside = gate[..., None]
    own = jnp.where(inside, 0, self_read) if exclusive else self_read
    return (own + jnp.where(inside, cross_read, 0)) / 2


def theme_layer(
    params: dict[str, Any],
    x: Float[Array, "b t m"],
    theme: Float[Array, "b s m"],
    labels: Int[Array, "b t"],
    *,
    heads: int,
    exclusive: bool = False,
    positions: Float[Array, "*b t m"] | float = 0.0,
    theme_positions: Float[Array, "b t m"] | float = 0.0,
    eps: float = 1e-5,
) -> Float[Array, "b t m"]:
    """A decoder layer, norms behind residuals.

    Args:
        params: `self` and `cross`, each `query`, `key`, `value` and `output`; `norm`, `mlp` and
            `mlp_norm`.
        x: tokens.
        theme: what it is encoded to.
        labels: place in the theme, from 1 on; 0 outside.
        heads: number of heads.
        exclusive: whether tokens inside a theme leave self-attention out.
        positions: P_t, added to what self-attention's queries, keys and values are made of.
        theme_positions: P[l_t], added to what cross-attention's queries are made of.
        eps: of the norms.

    Reference:
        arXiv 2111.04093.

    Example:
        >>> eye, one = {"weight": jnp.eye(2)}, {"scale": jnp.ones(2)}
        >>> maps = {"query": eye, "key": eye, "value": eye, "output": eye}
        >>> params = {"self": maps, "cross": maps, "norm": one, "mlp_norm": one}
        >>> params["mlp"] = {"inner": eye, "outer": eye}
        >>> x = jnp.ones((1, 3, 2))
        >>> theme_layer(params, x, x, jnp.array([[0, 1, 2]]), heads=1).shape
        (1, 3, 2)
    """
    placed = x + positions
    own = _read(params["self"], placed, placed, heads, masks.causal())
    read = _read(params["cross"], x + theme_positions, theme, heads, None)
    x = norm(
        params["norm"], x + gated_parallel(own, read, labels > 0, exclusive=exclusive), eps=eps
    )
    return norm(params["mlp_norm"], x + mlp(params["mlp"], x), eps=eps)


def _read(params, x, source, heads, mask):
    of = {"query": x, "key": source, "value": source}
    query, key, value = (split_heads(affine(params[name], z), heads) for name, z in of.items())
    return affine(params["output"], merge_heads(engine.attend(query, key, value, mask=mask)))
