"""Titans' memory where it is a matrix or an MLP: the same numbers by matrix products.

Paper: Titans, arXiv 2501.00663.

A token's gradient in a matrix is the product of what the matrix was given, a_i, and of a slope at
what it put out, d_i. So a matrix after token t is what it was, faded, and a sum of such products,

    W_t = A_t W + f_t S - sum_{i<=t} G_ti theta_i a_i d_i^T,     G = A E

and what it makes of y is found without it:

    y W_t = A_t y W + f_t y S - sum_{i<=t} G_ti theta_i (y.a_i) d_i^T

where A_ti and E_ti are the products of 1 - forget and of momentum from i + 1 to t, A_t = A_t0,
f = A e with e_t the product of momentum up to t. A network's matrices are read one after the other.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.mechanisms.memory.inner_loop import BLOCK, over_blocks, per_head, transfer
from jattn.mechanisms.memory.networks import through

_product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
_sum_over = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


class _Shares(NamedTuple):
    """What is left at each token of a block, of what entered it and of each token's push.

    Attributes:
        rest: of the weights `[t, c]`; c is 1 where all channels fade alike.
        older: of the momentum that entered, as weights `[t, c]`; None: there is none.
        share: of each push, as weights `[t, t, c]`.
        fading: of the momentum that entered, as momentum.
        echo: of each push, as momentum `[t]`, at the block's end.
    """

    rest: Array
    older: Array | None
    share: Array
    fading: Array | None
    echo: Array | None


def _shares(keep: Array, momentum: Array | None) -> _Shares:
    keep = keep.reshape(len(keep), -1)
    share, rest = transfer(keep), jnp.cumprod(keep, 0)
    if momentum is None:
        return _Shares(rest, None, share, None, None)
    echo, fading = transfer(momentum), jnp.cumprod(momentum)
    older = _sum_over("tic,i->tc", share, fading)
    return _Shares(rest, older, _sum_over("tjc,ji->tic", share, echo), fading[-1], echo[-1])


def _read(own: _Shares, weight: Array, moment: Array, heard: Array, push: Array, y: Array) -> Array:
    """What the matrix as it is at each token makes of that token's y."""
    out = own.rest * _product(y, weight)
    if own.older is not None:
        out += own.older * _product(y, moment)
    met = _product(y, heard.T)
    if own.share.shape[-1] == 1:
        return out + _product(own.share[..., 0] * met, push)
    return out + _sum_over("ti,tic,ic->tc", met, own.share, push)


def _end(own: _Shares, weight: Array, moment: Array, heard: Array, push: Array):
    """The matrix and its momentum after the block."""
    weight = own.rest[-1] * weight
    if own.older is not None:
        weight += own.older[-1] * moment
        assert own.echo is not None
        assert own.fading is not None
        moment = own.fading * moment + _product(heard.T, own.echo[:, None] * push)
    return weight + _product(heard.T, own.share[-1] * push), moment


def _gradients(params: Any, key, value, slope, slope_inputs, clip):
    """What each matrix is given and the slope at what it puts out, `[t, ...]`; of the gain, too."""
    heard: list[Array] = []

    def run(probes, gain):
        heard.clear()

        def product(weight, probe):
            def of(y):
                heard.append(y)
                return y @ weight + probe

            return of

        products = [product(w, p) for w, p in zip(params["weights"], probes, strict=True)]
        return through(products, gain, key), list(heard)

    probes = [jnp.zeros((len(key), w.shape[1]), key.dtype) for w in params["weights"]]
    gain = params.get("gain")
    gain = None if gain is None else jnp.broadcast_to(gain, (len(key), *gain.shape))
    out, pull, given = jax.vjp(run, probes, gain, has_aux=True)
    slopes, of_gain = pull(jax.vmap(slope)(out - value, slope_inputs))
    # The gain is a matrix with one row, which is always given 1.
    given = {"weights": given} | ({} if gain is None else {"gain": jnp.ones((len(key), 1))})
    slopes = {"weights": slopes} | ({} if gain is None else {"gain": of_gain})
    if clip is not None:
        squares = jax.tree.map(lambda a, d: (a**2).sum(-1) * (d**2).sum(-1), given, slopes)
        norm = lax.rsqrt(sum(jax.tree.leaves(squares)) + 1e-12)
        slopes = jax.tree.map(lambda d: jnp.minimum(1, clip * norm)[:, None] * d, slopes)
    return given, slopes


def _leaves(tree: Any) -> list[Any]:
    """The matrices' part of a tree, and the gain's behind them if there is one."""
    return [*tree["weights"], *([tree["gain"]] if "gain" in tree else [])]


def _like(tree: Any, leaves: Sequence[Array]) -> Any:
    """Leaves in the order of `_leaves` as such a tree, of its shapes."""
    count = len(tree["weights"])
    pairs = zip(_leaves(tree), leaves, strict=True)
    shaped = [leaf.reshape(like.shape) for like, leaf in pairs]
    return {"weights": shaped[:count]} | ({"gain": shaped[count]} if "gain" in tree else {})


def network_memory(
    weights: Any,
    surprise: Any,
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    step_size: Any,
    forget: Any,
    momentum: Float[Array, "b t h"] | None,
    slope_inputs: Any,
    *,
    refresh: int,
    slope: Callable[[Array, Any], Array],
    clip: float | None = None,
) -> tuple[Float[Array, "b t h e"], Any, Any]:
    """`neural_memory` of `networks.network`, with updates of one token, and no weights a token.

    Args: as `neural_memory`, of float32 at least, but for

        weights, surprise: M and S to begin with, leaves `[b, h, ...]`.
        step_size, forget: trees like the weights.
        momentum: None leaves it out.
        slope_inputs: what the slope needs besides the error, leaves `[b, t, h, ...]`.
        slope: `(error [e], inputs) -> [e]`, the derivative of the loss in M(k).

    Returns:
        Reads, M and S, as `neural_memory`.

    Reference:
        arXiv 2501.00663, section 3.2.

    Example:
        >>> from jattn.mechanisms.memory.neural_memory import squared_slope
        >>> x, rate = jax.random.normal(jax.random.key(1), (1, 9, 2, 4)), jnp.full((1, 9, 2), 0.1)
        >>> zero, rates = {"weights": [jnp.zeros((1, 2, 4, 4))]}, {"weights": [rate]}
        >>> network_memory(zero, zero, x, x, x, rates, rates, rate, None, refresh=4,
        ...                slope=squared_slope)[0].shape
        (1, 9, 2, 4)
    """
    size = max(n for n in range(1, BLOCK + 1) if refresh % n == 0)
    length = query.shape[1]

    def block(carry, inputs):
        weights, surprise, anchor = carry
        (query, key, value, step_size, forget, momentum, own), fresh = inputs
        choose = lambda new, old: jnp.where(fresh[0], new, old)
        anchor = weights if size == refresh else jax.tree.map(choose, weights, anchor)
        heard, slopes = _gradients(anchor, key, value, slope, own, clip)
        shares = jax.tree.map(lambda a: _shares(1 - a, momentum), forget)
        pushes = jax.tree.map(lambda theta, d: -theta[:, None] * d, step_size, slopes)
        by_leaf = [_leaves(tree) for tree in (shares, weights, surprise, heard, pushes)]
        by_leaf[1:3] = [[w.reshape(-1, w.shape[-1]) for w in leaves] for leaves in by_leaf[1:3]]
        leaves = list(zip(*by_leaf, strict=True))
        products = [functools.partial(_read, *leaf) for leaf in leaves]
        gain = products.pop()(jnp.ones((len(query), 1))) if "gain" in weights else None
        out = through(products, gain, query)
        ends = zip(*(_end(*leaf) for leaf in leaves), strict=True)
        weights, surprise = (_like(weights, end) for end in ends)
        return (weights, surprise, anchor), out

    def sequence(weights, surprise, *inputs):
        fresh = jnp.arange(length) % refresh == 0
        (weights, surprise, _), out = over_blocks(
            block, (weights, surprise, weights), (inputs, fresh), size, length
        )
        return (weights, surprise), out

    (weights, surprise), out = per_head(sequence, shared=(0, 1))(
        weights, surprise, query, key, value, step_size, forget, momentum, slope_inputs
    )
    return out, weights, surprise
