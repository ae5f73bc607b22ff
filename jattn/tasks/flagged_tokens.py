"""Two flagged tokens among noise, whose attributes have to be told apart (arXiv 2506.10178).

Of many noisy tokens one carries flag a and one of four attributes, another flag b and one of the
same four. The class is the pair of attributes in order, so a mean of all tokens, or one map over
them, does not say whose attribute is whose.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jattn.checks import check_count, check_number

ATTRIBUTES = 4
CLASSES = ATTRIBUTES**2
FLAG, ATTRIBUTE = 4.0, 3.0  # lengths


def flagged_tokens(
    key: jax.Array, *, tokens: int = 49, dim: int = 32, noise: float = 0.5
) -> tuple[Float[Array, "n m"], Int[Array, ""], Int[Array, "2"]]:
    """Draws tokens, their class, and where the two flagged ones are.

    Args:
        key: a PRNG key.
        tokens: n, two or more.
        dim: m, six or more: flags and attributes are orthogonal, the same in every draw.
        noise: standard deviation of each number.

    Example:
        >>> x, label, places = flagged_tokens(jax.random.key(0), noise=0.0)
        >>> lengths = jnp.linalg.norm(x, axis=1)
        >>> [round(float(length), 3) for length in lengths[places]], int((lengths > 0).sum())
        ([5.0, 5.0], 2)
    """
    check_count("tokens", tokens, 2)
    check_count("dim", dim, ATTRIBUTES + 2)
    check_number("noise", noise, least=0)
    of_places, of_attributes, of_noise = jax.random.split(key, 3)
    directions = jnp.asarray(_directions(dim))
    places = jax.random.permutation(of_places, tokens)[:2]
    attributes = jax.random.randint(of_attributes, (2,), 0, ATTRIBUTES)
    marked = FLAG * directions[:2] + ATTRIBUTE * directions[2:][attributes]
    x = noise * jax.random.normal(of_noise, (tokens, dim))
    return x.at[places].add(marked), ATTRIBUTES * attributes[0] + attributes[1], places


def _directions(dim: int) -> np.ndarray:
    """Orthonormal rows: two flags, then the attributes."""
    drawn = np.random.default_rng(0).normal(size=(dim, ATTRIBUTES + 2))
    return np.linalg.qr(drawn)[0].T.astype(np.float32)
