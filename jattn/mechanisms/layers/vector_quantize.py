"""Vector quantisation with straight-through gradients (arXiv 1711.00937)."""

from typing import NamedTuple

from jax import lax
from jaxtyping import Array, Float, Int


class Quantized(NamedTuple):
    """What a codebook makes of vectors.

    Attributes:
        vectors: the nearest codewords, whose gradient passes to what was quantised as it is.
        indices: of those.
        loss: mean squares of codewords to vectors, and of vectors to codewords times a weight.
    """

    vectors: Float[Array, "*batch d"]
    indices: Int[Array, "*batch"]
    loss: Float[Array, ""]


def vector_quantize(
    z: Float[Array, "*batch d"], codebook: Float[Array, "k d"], *, commitment: float = 0.25
) -> Quantized:
    """The codeword nearest to each vector; the first of those that are equally near.

    Args:
        z: vectors.
        codebook: k words.
        commitment: weight of the loss's second term, which pulls vectors; the first pulls words.

    Reference:
        arXiv 1711.00937.

    Example:
        >>> import jax.numpy as jnp
        >>> found = vector_quantize(jnp.array([[0.9, 0.0]]), jnp.eye(2))
        >>> found.vectors.tolist(), found.indices.tolist(), round(float(found.loss), 5)
        ([[1.0, 0.0]], [0], 0.00625)
    """
    words = codebook.astype(z.dtype)
    distance = (z**2).sum(-1, keepdims=True) - 2 * z @ words.T + (words**2).sum(-1)
    indices = distance.argmin(-1)
    chosen = words[indices]
    pulled = ((chosen - lax.stop_gradient(z)) ** 2).mean()
    committed = ((lax.stop_gradient(chosen) - z) ** 2).mean()
    through = z + lax.stop_gradient(chosen - z)
    return Quantized(through, indices, pulled + commitment * committed)
