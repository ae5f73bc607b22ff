"""Relative attention of the Music Transformer (Huang et al. 2018, arXiv 1809.04281).

    o_i = sum_{j <= i} softmax_j( (q_i . k_j + q_i . r_{i-j}) / sqrt(d) ) v_j

r is a learned vector of each distance into the past, of each head or shared by all; distances
beyond the table share its last vector.

Distinctive: the scores by distance, q_i . r, are skewed into scores by key by a reshape, so no
vector of each pair of tokens is ever made: memory O(t d + t^2), not O(t^2 d).

Limits: a table of zeros is softmax attention, and so is one that is the same at all distances; rows
c_k u with q . u = 1 are the linear biases of ALiBi (arXiv 2108.12409).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.attention import attend, masks
from jattn.checks import check_shape
from jattn.mechanisms import projections as p
from jattn.mechanisms.mixer import Mechanism, Mixer
from jattn.mechanisms.softmax.attention_mixer import attention_mixer


def relative_logits(
    query: Float[Array, "b t h d"],
    table: Float[Array, "#h n d"],
    *,
    keys: int | None = None,
    distance: Int[Array, "#b t s"] | None = None,
) -> Float[Array, "b h t s"]:
    """Scores `q_i . r_{i-j}` of every query and key, not scaled.

    Args:
        query: `[b, t, h, d]`.
        table: `[h, n, d]` or `[1, n, d]`; row n - 1 - k is distance k into the past. Distances of n
            and more take row 0; keys after the query, row n - 1 or (by skewing) 0: hide them.
        keys: s, t at least (the default); the last key meets the last query. By skewing.
        distance: of each query to each key, in place of index less index; looked up one by one,
            for packed positions and single tokens.

    Returns:
        `[b, h, t, s]`, in query's dtype.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 1809.04281.

    Example:
        >>> table = jnp.array([[[2.0], [1.0], [0.0]]])  # distances 2, 1, 0
        >>> relative_logits(jnp.ones((1, 3, 1, 1)), table)[0, 0].tolist()
        [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 1.0, 0.0]]
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("table", table, "one_or_h n d", sizes)
    if sizes["one_or_h"] not in (1, sizes["h"]):
        raise ValueError(f"table: expected 1 or {sizes['h']} heads, got {sizes['one_or_h']}")
    b, t, h, rows = sizes["b"], sizes["t"], sizes["h"], sizes["n"]
    table = jnp.broadcast_to(table, (h, *table.shape[1:])).astype(query.dtype)
    if distance is not None:
        by_row = jnp.einsum("bthd,hnd->bhtn", query, table)
        row = jnp.clip(rows - 1 - distance, 0, rows - 1)[:, None]
        return jnp.take_along_axis(by_row, row, axis=3)
    s = t if keys is None else keys
    if s < t:
        raise ValueError(f"keys: expected at least the {t} queries, got {s}")
    # Column c is distance s - 1 - c. Query i wants it t - 1 - i columns further left: with a
    # column of padding, rows that are read one place short of their length drift so by themselves.
    band = table[:, jnp.maximum(jnp.arange(s) + rows - s, 0)]
    by_distance = jnp.einsum("bthd,hsd->bhts", query, band)
    padded = jnp.pad(by_distance, ((0, 0), (0, 0), (0, 0), (1, 0)))
    skewed = padded.reshape(b, h, t * (s + 1))[..., t:].reshape(b, h, t, s)
    # What drifted in from the next row belongs to keys after the query.
    return jnp.where(jnp.arange(s) <= jnp.arange(s - t, s)[:, None], skewed, 0)


def relative_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    table: Float[Array, "#h n d"],
    *,
    distance: Int[Array, "#b t s"] | None = None,
    relations: Sequence[tuple[Array, Array]] = (),
    mask=None,
) -> Float[Array, "b t h e"]:
    """Softmax attention whose scores see the distance of key and query.

    Args:
        query, key, value: `[b, t, h, d]`, `[b, s, g, d]`, `[b, s, g, e]`, g a divisor of h.
        table: `[h, n, d]` or `[1, n, d]`; row n - 1 - k is distance k into the past.
        distance: of each query to each key; default index less index, the last ones meeting.
        relations: further pairs of a table `[h or 1, 2 r + 1, d]` and differences `[b, t, s]` of
            some attribute (pitch, time), which adds `q_i . table[clip(difference, -r, r) + r]`.
        mask: anything `jattn.attend` takes; it should hide keys after the query.

    Returns:
        `[b, t, h, e]`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 1809.04281.

    Example:
        >>> from jattn import masks
        >>> x = jnp.ones((1, 5, 2, 8))
        >>> relative_attention(x, x, x, jnp.ones((2, 5, 8)), mask=masks.causal()).shape
        (1, 5, 2, 8)
    """
    logits = relative_logits(query, table, keys=key.shape[1], distance=distance)
    for attribute_table, difference in relations:
        reach = attribute_table.shape[1] // 2
        # A signed difference is a distance into a table whose middle row is 0.
        logits += relative_logits(query, attribute_table, distance=reach - difference)
    return attend(query, key, value, bias=logits * query.shape[3] ** -0.5, mask=mask)


def local_relative_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    table: Float[Array, "#h n d"],
    *,
    block: int,
) -> Float[Array, "b t h e"]:
    """Causal relative attention to a token's own block and the one before: O(t block) of memory.

    Args:
        query, key, value: `[b, t, h, d]`, `[b, t, g, d]`, `[b, t, g, e]`, g a divisor of h.
        table: `[h, n, d]` or `[1, n, d]`; row n - 1 - k is distance k; 2 block rows are in reach.
        block: tokens of a block; t need not be a multiple.

    Returns:
        `[b, t, h, e]`.

    Raises:
        ValueError: shapes that do not fit, or a block below 1.

    Reference:
        arXiv 1809.04281, relative local attention.

    Example:
        >>> x = jnp.ones((1, 7, 2, 8))
        >>> local_relative_attention(x, x, x, jnp.ones((2, 6, 8)), block=3).shape
        (1, 7, 2, 8)
    """
    if block < 1:
        raise ValueError(f"block: expected at least 1, got {block}")
    b, t = query.shape[:2]
    count = -(-t // block)

    def blocks(x):  # `[b, t, ...] -> [b, count, block, ...]`
        x = jnp.pad(x, ((0, 0), (0, count * block - t), (0, 0), (0, 0)))
        return x.reshape(b, count, block, *x.shape[2:])

    def with_previous(x):
        x = blocks(x)
        before = jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))
        return jnp.concatenate([before, x], axis=2).reshape(b * count, 2 * block, *x.shape[3:])

    # The block before the first one is not there.
    first = jnp.tile(jnp.arange(count) == 0, b)[:, None, None, None]
    there = masks.from_array(~first | (jnp.arange(2 * block) >= block))
    mask = masks.causal(offset=block) & there
    by_block = blocks(query).reshape(b * count, block, *query.shape[2:])
    out = relative_attention(by_block, with_previous(key), with_previous(value), table, mask=mask)
    return out.reshape(b, count * block, *out.shape[2:])[:, :t]


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    kv_heads: int | None = None,
    max_distance: int = 512,
    shared_heads: bool = False,
    window: int | None = None,
) -> Mixer:
    """Makes the mixer; its table is the parameter `relative`.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens; there is no other form.
        kv_heads: key-value heads g, a divisor of h; default h.
        max_distance: rows n of the table, distances 0 to n - 1; further ones take the last.
        shared_heads: all heads share a table.
        window: a token sees itself and window - 1 tokens before it.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4, max_distance=16)
        >>> params = mixer.init(jax.random.key(0))
        >>> params["relative"].shape, jax.jit(mixer.apply)(params, jnp.ones((1, 6, 32))).shape
        ((4, 16, 8), (1, 6, 32))
    """
    if not causal:
        raise ValueError("causal: relative_attention has only a causal form; pass causal=True")
    if max_distance < 1:
        raise ValueError(f"max_distance: expected at least 1, got {max_distance}")
    p.check_heads(dim, heads, kv_heads)

    def init(key):
        shape = (1 if shared_heads else heads, max_distance, dim // heads)
        return {"relative": jax.random.normal(key, shape) * shape[-1] ** -0.5}

    def core(params, query, key, value, scene):
        return relative_attention(
            query, key, value, params["relative"], distance=scene.distance, mask=scene.mask
        )

    return attention_mixer(
        "relative_attention",
        dim=dim,
        heads=heads,
        causal=True,
        core=core,
        kv_heads=kv_heads,
        init=init,
        self_only=True,
        window=window,
    )


MECHANISM = Mechanism(
    name="relative_attention",
    title="Music Transformer: relative attention by skewing",
    arxiv="1809.04281",
    family="softmax",
    equation="o_i = sum_j softmax_j((q_i.k_j + q_i.r_{i-j}) / sqrt(d)) v_j",
    core=relative_attention,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="quadratic",
    parameters=("relative",),
)
