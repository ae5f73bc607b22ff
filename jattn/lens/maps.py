"""Statistics of a layer's attention maps (arXiv 2510.11602): five numbers a layer.

entropy        mean over heads and rows of -sum_j A_ij ln A_ij
concentration  mean over heads of |A|_F
diversity      mean over the cells i >= j of the standard deviation of A_ij over heads
sink           mean over heads and rows of A_i0
local_N        mean over heads and rows i >= N of A_{i,i-N}
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape
from jattn.lens.heads import head_entropy


class MapStatistics(NamedTuple):
    """Statistics of the maps of every layer.

    Attributes:
        entropy: nats, `[l]`; 0 where each row attends to one key.
        concentration: Frobenius norm, `[l]`; sqrt(t) where each row attends to one key.
        diversity: `[l]`; 0 where all heads are alike.
        sink: attention to the first key, `[l]`.
        local: attention to the key N tokens before, `[l, N + 1]` for distances 0 to N.
    """

    entropy: Float[Array, " l"]
    concentration: Float[Array, " l"]
    diversity: Float[Array, " l"]
    sink: Float[Array, " l"]
    local: Float[Array, "l n"]


def map_statistics(weights: Float[Array, "l b h t t"], *, distance: int = 3) -> MapStatistics:
    """Entropy, concentration, diversity, sink and locality of causal attention maps.

    Each is a mean over the batch. The first rows, which see few keys, count as all others; of
    `local` only the rows that have such a key do.

    Args:
        weights: attention maps `[l, b, h, t, t]`, rows summing to one, zero above the diagonal.
        distance: the largest N of `local`, below t.

    Returns:
        A `MapStatistics`.

    Raises:
        ValueError: maps that are not square, or a distance that does not fit.

    Reference:
        arXiv 2510.11602.

    Example:
        >>> found = map_statistics(jnp.eye(4)[None, None, None], distance=1)
        >>> float(found.concentration[0]), float(found.sink[0]), found.local[0].tolist()
        (2.0, 0.25, [1.0, 0.0])
    """
    sizes: dict[str, int] = {}
    check_shape("weights", weights, "l b h t s", sizes)
    length = sizes["t"]
    if sizes["s"] != length:
        raise ValueError(f"weights: expected square maps, got {length} rows of {sizes['s']}")
    if not 0 <= distance < length:
        raise ValueError(f"distance: expected 0 to {length - 1}, got {distance}")
    row, column = jnp.tril_indices(length)
    lower = weights.std(axis=2)[..., row, column]
    near = [
        jnp.diagonal(weights, -n, axis1=3, axis2=4).mean((1, 2, 3)) for n in range(distance + 1)
    ]
    return MapStatistics(
        head_entropy(weights).mean(1),
        jnp.linalg.norm(weights, axis=(3, 4)).mean((1, 2)),
        lower.mean((1, 2)),
        weights[..., 0].mean((1, 2, 3)),
        jnp.stack(near, axis=-1),
    )
