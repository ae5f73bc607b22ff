"""The column form: each key gathers what the queries send to it, with row-normalised weights."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention.attend import attend
from jattn.attention.attention_args import make_bias
from jattn.attention.blocks import Blocks
from jattn.attention.masks import MaskLike, as_mask, query_offset
from jattn.attention.normalizers import Normalizer
from jattn.attention.scores import ScoreMod, at_offset
from jattn.checks import check_array, check_shape


def attend_columns(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    content: Float[Array, "b t gc e"],
    lse: Float[Array, "b t h"],
    *,
    mask: MaskLike | None = None,
    bias: Array | float | None = None,
    score_mod: ScoreMod | None = None,
    scale: Array | float | None = None,
    implementation: str | Blocks | None = None,
) -> Float[Array, "b s h e"]:
    """The column form of attention: queries send, keys receive.

        out_j = sum_i exp(score_ij - lse_i) c_i

    with the scores of `attend`, same arguments and same order. With the lse of the row softmax it
    is the transposed weight matrix times the content.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, g, d]`, g divides h.
        content: what query i sends, `[b, t, gc, e]`, gc divides h.
        lse: log-sum-exp of each row `[b, t, h]`, as `attend` returns it; differentiable. -inf at
            rows that the mask leaves without a key.
        mask: as for `attend`, broadcastable to `[b, h, t, s]`.
        bias: as for `attend`.
        score_mod: as for `attend`.
        scale: as for `attend`.
        implementation: as for `attend`.

    Returns:
        `[b, s, h, e]`, in query's dtype.

    Raises:
        ValueError: as `attend`.

    Reference:
        Row softmax with column aggregation; it is dV = P^T dO of arXiv 2205.14135.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 2, 4))
        >>> _, lse = attend(x, x, x, return_lse=True)
        >>> received = attend_columns(x, x, jnp.ones((1, 6, 2, 1)), lse)
        >>> bool(jnp.allclose(received.sum(1), 6, atol=1e-5))  # six senders, one unit each
        True
    """
    sizes: dict[str, int] = {}
    arrays = {"query": query, "key": key, "content": content, "lse": lse}
    for name, axes in zip(arrays, ("b t h d", "b s g d", "b t gc e", "b t h"), strict=True):
        check_array(name, arrays[name], "floating")
        check_shape(name, arrays[name], axes, sizes)
    heads = sizes["h"]
    for name, groups in (("key", sizes["g"]), ("content", sizes["gc"])):
        if groups == 0 or heads % groups:
            raise ValueError(f"{name}: expected heads that divide query's {heads}, got {groups}")

    if bias is not None:
        full: Any = make_bias(bias, *(sizes[letter] for letter in "bhts"))
        bias = jnp.swapaxes(full, 2, 3)
    if mask is not None:
        mask = as_mask(mask).fit(*(sizes[letter] for letter in "bhts"))
    if score_mod is not None:
        by_row = at_offset(score_mod, lambda: query_offset(mask))
        score_mod = lambda score, b, h, q_index, k_index: by_row(score, b, h, k_index, q_index)
    # A row without a key is all masked; its infinite lse would only make NaN of what is hidden.
    lse = jnp.where(lse == -jnp.inf, 0, lse)
    rule = Normalizer("given_lse", jnp.exp, divide=False, shift=jnp.swapaxes(lse, 1, 2)[:, :, None])
    return attend(
        jnp.repeat(key, heads // key.shape[2], axis=2).astype(query.dtype),
        query,
        content,
        mask=None if mask is None else mask.T,
        bias=bias,
        score_mod=score_mod,
        normalizer=rule,
        scale=scale,
        implementation=implementation,
    )
