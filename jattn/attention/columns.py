"""The column form: each key gathers what the queries send to it, with row-normalised weights."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.attention.attend import attend
from jattn.attention.blocks import Blocks
from jattn.attention.masks import Mask, as_mask
from jattn.attention.normalizers import Normalizer
from jattn.attention.planes import as_plane
from jattn.attention.scores import ScoreMod
from jattn.checks import check_shape


def attend_columns(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    content: Float[Array, "b t gc e"],
    lse: Float[Array, "b t h"],
    *,
    mask: Mask | Bool[Array, "..."] | None = None,
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
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b s g d", sizes)
    check_shape("content", content, "b t gc e", sizes)
    check_shape("lse", lse, "b t h", sizes)
    heads = sizes["h"]
    if sizes["g"] == 0 or heads % sizes["g"]:
        raise ValueError(f"key: expected heads that divide query's {heads}, got {sizes['g']}")

    def turned(score, batch, head, q_index, k_index):
        assert score_mod is not None
        return score_mod(score, batch, head, k_index, q_index)

    if bias is not None:
        bias = as_plane("bias", jnp.asarray(bias), *(sizes[letter] for letter in "bhts"))
        bias = jnp.swapaxes(bias, 2, 3)
    if mask is not None:
        mask = as_mask(mask)
        mask.check(*(sizes[letter] for letter in "bhts"))
        mask = mask.T
    # A row without a key is all masked; its infinite lse would only make NaN of what is hidden.
    lse = jnp.where(lse == -jnp.inf, 0, lse)
    rule = Normalizer("given_lse", jnp.exp, divide=False, shift=jnp.swapaxes(lse, 1, 2)[:, :, None])
    return attend(
        jnp.repeat(key, heads // key.shape[2], axis=2).astype(query.dtype),
        query,
        content,
        mask=mask,
        bias=bias,
        score_mod=None if score_mod is None else turned,
        normalizer=rule,
        scale=scale,
        implementation=implementation,
    )
