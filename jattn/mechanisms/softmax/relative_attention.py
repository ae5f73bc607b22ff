"""Relative attention of the Music Transformer (Huang et al. 2018, arXiv 1809.04281).

    o_i = sum_{j <= i} softmax_j( (q_i . k_j + q_i . r_{i-j}) / sqrt(d) ) v_j

r is a learned vector of each distance into the past, of each head or shared by all; distances
beyond the table share its last vector. The bidirectional form sums over all j, with vectors of
distances into the future, too, as in arXiv 1803.02155.

Distinctive: the scores by distance, q_i . r, are skewed into scores by key by a reshape, so no
vector of each pair of tokens is ever made: memory O(t d + t^2), not O(t^2 d).

Limits: a table of zeros is softmax attention, and so is one that is the same at all distances; rows
c_k u with q . u = 1 are the linear biases of ALiBi (arXiv 2108.12409).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend, masks
from jattn.attention.mask_parts import layout
from jattn.checks import check_count, check_flag, check_shape
from jattn.mechanisms.frames.attention_mixer import AttentionContext, attention_mixer
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer


def relative_logits(
    query: Float[Array, "b t h d"],
    table: Float[Array, "#h n d"],
    *,
    keys: int | None = None,
    relative_positions: Int[Array, "#b t s"] | None = None,
    future: int | None = None,
) -> Float[Array, "b h t s"]:
    """Scores `q_i . r_{i-j}` of every query and key, not scaled.

    Args:
        query: `[b, t, h, d]`.
        table: `[h, n, d]` or `[1, n, d]`; row n - 1 - future - k is distance k into the past, k < 0
            into the future. Distances beyond the table take its last row on that side.
        keys: s, t at least (the default); the last key meets the last query. By skewing.
        relative_positions: of each query to each key, in place of index less index; looked up one
            by one, for packed positions and single tokens.
        future: how many rows are of distances into the future, 0 to n - 1. None: 0, and keys after
            the query are to be hidden; they take row n - 1 or (by skewing) 0.

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
    if future is not None:
        check_count("future", future, 0)
        if future >= rows:
            raise ValueError(f"future: expected less than the table's {rows} rows, got {future}")
    now = rows - 1 - (future or 0)
    table = jnp.broadcast_to(table, (h, *table.shape[1:])).astype(query.dtype)
    if relative_positions is not None:
        by_row = jnp.einsum("bthd,hnd->bhtn", query, table)
        row = jnp.clip(now - relative_positions, 0, rows - 1)[:, None]
        return jnp.take_along_axis(by_row, row, axis=3)
    s = t if keys is None else keys
    if s < t:
        raise ValueError(f"keys: expected at least the {t} queries, got {s}")
    if future is not None:
        # Column c is distance s - c. Query i wants it t - i columns further left: rows that are
        # read one entry short of their length drift so by themselves.
        band = table[:, jnp.clip(jnp.arange(s + t + 1) + now - s, 0, rows - 1)]
        by_distance = jnp.einsum("bthd,hwd->bhtw", query, band).reshape(b, h, -1)
        return by_distance[..., t:].reshape(b, h, t, s + t)[..., :s]
    # Column c is distance s - 1 - c. Query i wants it t - 1 - i columns further left: with a
    # column of padding, rows that are read one entry short of their length drift so by themselves.
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
    relative_positions: Int[Array, "#b t s"] | None = None,
    relations: Sequence[tuple[Array, Array]] = (),
    future: int | None = None,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Softmax attention whose scores see the distance of key and query.

    Args:
        query, key, value: `[b, t, h, d]`, `[b, s, g, d]`, `[b, s, g, e]`, g a divisor of h.
        table: `[h, n, d]` or `[1, n, d]`; row n - 1 - future - k is distance k into the past.
        relative_positions: of each query to each key; default index less index, the last ones
            meeting.
        relations: further pairs of a table `[h or 1, 2 r + 1, d]` and differences `[b, t, s]` of
            some attribute (pitch, time), which adds `q_i . table[clip(difference, -r, r) + r]`.
        future: how many rows are of distances into the future. None: the mask hides keys after the
            query.
        mask: anything `jattn.attend` takes.

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
    logits = relative_logits(
        query, table, keys=key.shape[1], relative_positions=relative_positions, future=future
    )
    for attribute_table, difference in relations:
        reach = attribute_table.shape[1] // 2
        # A signed difference is a distance into a table whose middle row is 0.
        logits += relative_logits(query, attribute_table, relative_positions=reach - difference)
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
    check_count("block", block)
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
    block: int | None = None,
) -> Mixer:
    """Makes the mixer; its table is the parameter `relative`.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.
        max_distance: n; the table has rows of the distances 0 to n - 1, and unless causal of 1 to
            n - 1 into the future; further ones take the last.
        shared_heads: all heads share a table.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).
        block: the paper's local form, which is causal: a token sees its own block of so many tokens
            and the one before. Blocks are counted by positions, or else among the real tokens of a
            document. Memory is O(t block) where positions are not given and the mask hides nothing
            but padding at the end.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4, max_distance=16)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["relative"].shape
        (4, 16, 8)
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    check_flag("causal", causal)
    check_count("max_distance", max_distance)
    check_flag("shared_heads", shared_heads)
    check_heads(dim, heads, kv_heads)
    future = None if causal else max_distance - 1
    if block is not None:
        check_count("block", block)
        if not causal:
            raise ValueError("block: the local form is causal; pass causal=True")

    def init(key):
        shape = (1 if shared_heads else heads, max_distance + (future or 0), dim // heads)
        return {"relative": jax.random.normal(key, shape) * shape[-1] ** -0.5}

    def core(params, query, key, value, context):
        table, mask = params["relative"], context.mask
        if block is not None:
            near = _near_blocks(context, block, key.shape[1])
            if near is None:
                return local_relative_attention(query, key, value, table, block=block)
            mask = mask & near
        return relative_attention(
            query,
            key,
            value,
            table,
            relative_positions=context.relative_positions,
            future=future,
            mask=mask,
        )

    return attention_mixer(
        "relative_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        kv_heads=kv_heads,
        init=init,
        self_only=True,
        window=window,
    )


def _near_blocks(
    context: AttentionContext, block: int, length: int
) -> Bool[Array, "#b 1 t s"] | None:
    """Marks keys in the query's block or the one before; None where blocks go by index alone
    and the mask is causal, so that no real token sees padding.
    """
    if context.positions is None:
        found = layout(context.mask, length)
        if found.causal and found.ends and found.documents is None and not found.rest:
            return None
        before = jnp.tril(jnp.ones((1, length, length), bool), -1)
        if found.real is not None:
            before &= found.real[:, None]
        if found.documents is not None:
            before &= found.documents[:, :, None] == found.documents[:, None]
        asking = looked = before.sum(-1)
    else:
        asking, looked = context.positions
    return (asking[:, :, None] // block - looked[:, None] // block <= 1)[:, None]


MECHANISM = Mechanism(
    name="relative_attention",
    title="Music Transformer: relative attention by skewing",
    arxiv="1809.04281",
    family="softmax",
    equation="o_i = sum_j softmax_j((q_i.k_j + q_i.r_{i-j}) / sqrt(d)) v_j",
    core=relative_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=False,
    streaming=True,
    cost="quadratic",
    positioned=True,
    parameters=("relative",),
)
