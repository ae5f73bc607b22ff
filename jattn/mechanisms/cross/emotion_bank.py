"""Emotion bank of DICE-Talk (Tan et al. 2025, arXiv 2504.18087): prompts, words, cross-attention.

    z' = z W + b,   r = the codeword nearest to z' (training) or the whole bank (inference)
    y = attend(a W_q + b_q, r' W_k + b_k, r' W_v + b_v)      no output projection

Prompts of an emotion are quantised to a few learned words, with straight-through gradients, and
tokens read the words they have been mapped to, or all of them.

Distinctive: the bank holds what emotions have in common, and attention mixes them.

Limits: codewords in another order change nothing; the loss is 0 only where z' is a word.
"""

from typing import Any

import jax
from jaxtyping import Array, Float

import jattn.attention as engine
from jattn.mechanisms.layers.affine import affine
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.layers.vector_quantize import Quantized, vector_quantize


def quantized_prompts(params: dict[str, Any], z: Float[Array, "*batch e"]) -> Quantized:
    """Prompts, mapped to the bank's size and quantised.

    Args:
        params: `project`, an affine map, and `bank` `[k, d]`.
        z: prompts.

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"project": {"weight": jnp.eye(2)}, "bank": jnp.eye(2)}
        >>> quantized_prompts(params, jnp.array([[0.0, 3.0]])).vectors.tolist()
        [[0.0, 1.0]]
    """
    return vector_quantize(affine(params["project"], z), params["bank"])


def bank_attention(
    params: dict[str, Any],
    x: Float[Array, "*batch t m"],
    bank: Float[Array, "*batch s n"],
    *,
    heads: int,
) -> tuple[Float[Array, "*batch t c"], Float[Array, "*batch h t s"]]:
    """What tokens read of a bank's, and the map.

    Args:
        params: affine maps `query`, `key` and `value`.
        x: tokens that ask.
        bank: tokens of the bank, or of the words retrieved.
        heads: number of heads.

    Reference:
        arXiv 2504.18087.

    Example:
        >>> import jax.numpy as jnp
        >>> one = {"weight": jnp.eye(2)}
        >>> params = {"query": one, "key": one, "value": one}
        >>> y, map = bank_attention(params, jnp.ones((1, 3, 2)), jnp.ones((1, 5, 2)), heads=1)
        >>> y.shape, map.shape
        ((1, 3, 2), (1, 1, 3, 5))
    """
    flat = lambda z: z.reshape(-1, *z.shape[-2:])
    query = split_heads(affine(params["query"], flat(x)), heads)
    key = split_heads(affine(params["key"], flat(bank)), heads)
    value = split_heads(affine(params["value"], flat(bank)), heads)
    y, weights = engine.attend(query, key, value, return_weights=True, implementation="reference")
    lead = x.shape[:-2]
    return y.reshape(*lead, x.shape[-2], -1), weights.reshape(*lead, *weights.shape[1:])


def bank_init(key: jax.Array, words: int, size: int) -> Float[Array, "k d"]:
    """Words drawn from U(-1 / k, 1 / k)."""
    return jax.random.uniform(key, (words, size), minval=-1 / words, maxval=1 / words)
