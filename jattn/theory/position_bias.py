"""Position bias: what a stack of masked attention layers makes of positions alone.

    P = A^(L) ... A^(1),    A^(l) = softmax over allowed keys of (x Wq)(x Wk)^T / sqrt(m)

P_ij is the influence of input j on output i. Under a causal mask it flows to the first position
as layers are added; a decay e^{-m (i-j)} pulls it back.

Reference: arXiv 2502.01951.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jattn
from jattn.attention.masks import Mask
from jattn.attention.rollout import rollout as rollout
from jattn.checks import check_shape


class Layer(NamedTuple):
    """Projections of one head `[m, m]`, applied from the right."""

    query: Float[Array, "m m"]
    key: Float[Array, "m m"]
    value: Float[Array, "m m"]


def self_attention_network(
    layers: Sequence[Layer],
    x: Float[Array, "b t m"],
    *,
    mask: Mask | None = None,
    decay: float = 0.0,
    rotary: bool = False,
    residual: bool = False,
) -> tuple[Float[Array, "b t m"], Float[Array, "l b t t"]]:
    """Attention layers of one head and nothing else: no MLP, no norm.

    Args:
        layers: the projections of each.
        x: tokens `[b, t, m]`.
        mask: which keys a query may see; None is all.
        decay: m, per position of distance, taken off the scores; for causal masks.
        rotary: rotate neighbouring channels of queries and keys, as in RoFormer.
        residual: add each layer's input to its output.

    Returns:
        Tokens after the last layer, and each layer's attention map.

    Raises:
        ValueError: weights of another width than the tokens.

    Reference:
        arXiv 2502.01951, section 3.

    Example:
        >>> layer = Layer(jnp.zeros((2, 2)), jnp.zeros((2, 2)), jnp.eye(2))
        >>> x, maps = self_attention_network(
        ...     [layer, layer], jnp.ones((1, 3, 2)), mask=jattn.masks.causal())
        >>> maps[0, 0, 1].tolist()
        [0.5, 0.5, 0.0]
    """
    maps = []
    position = jnp.arange(x.shape[1])
    bias = None
    if decay:
        bias = (decay * (position - position[:, None])).astype(x.dtype)[None, None]
    for layer in layers:
        sizes: dict[str, int] = {}
        check_shape("x", x, "b t m", sizes)
        for name, weight in zip(layer._fields, layer, strict=True):
            check_shape(f"layers.{name}", weight, "m m", sizes)
        query, key, value = (jnp.matmul(x, w)[:, :, None] for w in layer)
        if rotary:
            query, key = (
                jattn.attention.positions.rotary(each, interleaved=True) for each in (query, key)
            )
        out, weights = jattn.attend(query, key, value, mask=mask, bias=bias, return_weights=True)
        maps.append(weights[:, 0])
        x = x * residual + out[:, :, 0]
    return x, jnp.stack(maps)


def cesaro_power(length: int, layers: int, residual: float = 0.0) -> Float[np.ndarray, "t t"]:
    """Rollout of causal layers that attend evenly, A_ij = 1/i, with a share a of the input kept.

        (((1 - a) A + a I)^L)_ij
            = C(i-1, j-1) sum_{u=0}^{i-j} (-1)^u C(i-j, u) ((1 - a) / (j + u) + a)^L    (from 1)

    Args:
        length: number of positions, at most about 25: the sum alternates.
        layers: L.
        residual: a.

    Returns:
        `[t, t]`, float64.

    Reference:
        arXiv 2502.01951; with a, derived here: the eigenvectors are those of A.

    Example:
        >>> cesaro_power(2, 2).tolist()
        [[1.0, 0.0], [0.75, 0.25]]
    """
    return _cesaro_function(length, lambda value: ((1 - residual) * value + residual) ** layers)


def cesaro_flow(length: int) -> Float[np.ndarray, "t t"]:
    """Rollout of infinitely many causal even layers that each add 1/L of their output: e^(A - I).

    No position takes everything, however deep: the first has the most, and the last keeps
    `e^(1/t - 1)` of itself. Derived here.

    Args:
        length: number of positions, at most about 25.

    Example:
        >>> cesaro_flow(1).tolist()
        [[1.0]]
    """
    return _cesaro_function(length, lambda value: math.exp(value - 1))


def _cesaro_function(length: int, function: Callable[[float], float]) -> np.ndarray:
    """A function of the matrix A_ij = 1/i, whose eigenvalues are 1/j."""
    out = np.zeros((length, length))
    for i in range(1, length + 1):
        for j in range(1, i + 1):
            terms = [
                (-1) ** u * math.comb(i - j, u) * function(1 / (j + u)) for u in range(i - j + 1)
            ]
            out[i - 1, j - 1] = math.comb(i - 1, j - 1) * math.fsum(terms)
    return out


def layers_to_reach(length: int, window: int) -> int:
    """How many windowed layers together reach every earlier position: ceil((N - 1) / (w - 1)).

    Example:
        >>> layers_to_reach(16, 4), layers_to_reach(17, 5), layers_to_reach(20, 3)
        (5, 4, 10)
    """
    return -(-(length - 1) // (window - 1))


def influence_bound(
    position: int, smallest: float, layers: int, *, prefix: int = 1, reach: int = 1
) -> float:
    """What no later output has of an input, by the smallest weight that an allowed key gets.

        P_ij <= (1 - (j - K) eps^r)^floor(L / r)        (j from 1, K < j)

    K = 1 and r = 1 is a causal mask: all goes to the first position. A prefix of K positions, which
    all see each other, takes it together; a window needs r layers to reach back.

    Args:
        position: j, from 1, behind the prefix.
        smallest: eps, over all allowed pairs and layers.
        layers: L.
        prefix: K.
        reach: r, see `layers_to_reach`.

    Reference:
        arXiv 2502.01951; with the constant 1 and this exponent derived here.

    Example:
        >>> influence_bound(3, 0.25, 2)
        0.25
    """
    return (1 - (position - prefix) * smallest**reach) ** (layers // reach)


def decay_rollout(distance: int, decay: float, layers: int) -> float:
    """Rollout of layers with scores -m (i - j) alone, far from the first position.

        P_ij = C(L - 1 + d, d) e^{-m d} (1 - e^{-m})^L,   d = i - j

    a negative binomial with mode floor((L - 1) / (e^m - 1)): depth pushes the peak back.

    Args:
        distance: d, at least 0.
        decay: m, positive.
        layers: L.

    Reference:
        arXiv 2502.01951.

    Example:
        >>> round(decay_rollout(0, math.log(2), 1), 6)
        0.5
    """
    kept = math.exp(-decay)
    return math.comb(layers - 1 + distance, distance) * kept**distance * (1 - kept) ** layers
