"""Inner loops of memories that learn while they read: gradients a token, decayed sums, blocks.

A memory is a function M(params, x), and its parameters are the state: every token moves them by
a gradient. Gradients taken at one point (the parameters at the start of a block of tokens) do not
depend on one another, so a block is done at once; what they add up to is linear in them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

BLOCK = 64  # tokens at a time where the gradient point does not move


def token_gradients(
    apply_fn: Callable[[Any, Array], Array],
    params: Any,
    key: Float[Array, "t d"],
    value: Float[Array, "t e"],
    slope: Callable[[Array, Any], Array],
    slope_inputs: Any,
    clip: float | None = None,
) -> Any:
    """The gradient of each token's loss in the memory's parameters.

    Args:
        apply_fn: `(params, x [d]) -> y [e]`.
        params: where to take it.
        key: `[t, d]`.
        value: `[t, e]`.
        slope: `(error [e], inputs) -> [e]`, the derivative of the loss in M(k), from M(k) - v.
        slope_inputs: what else it needs, leaves `[t, ...]`.
        clip: the largest norm of a token's whole gradient; larger ones are shortened to it.

    Returns:
        A tree like params, each leaf with a leading axis t.

    Example:
        >>> read = lambda w, x: x @ w
        >>> k, v = jnp.ones((3, 2)), jnp.ones((3, 1))
        >>> token_gradients(read, jnp.zeros((2, 1)), k, v, lambda e, _: 2 * e, None).shape
        (3, 2, 1)
    """

    def one(key, value, inputs):
        out, pull = jax.vjp(lambda params: apply_fn(params, key), params)
        gradient = pull(slope(out - value, inputs))[0]
        if clip is None:
            return gradient
        square = sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient))
        factor = jnp.minimum(1, clip * lax.rsqrt(square + 1e-12))
        return jax.tree.map(lambda leaf: factor * leaf, gradient)

    return jax.vmap(one)(key, value, slope_inputs)


def transfer(keep: Float[Array, "n ..."]) -> Float[Array, "n n ..."]:
    """Shares left at step t of what came at step i <= t: products of keep_{i+1} .. keep_t.

    With a second axis, for each channel by itself. Products rather than exponentials of summed
    logarithms: exact where keep is 0.

    Example:
        >>> transfer(jnp.array([0.5, 0.5, 0.0])).tolist()
        [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    step = jnp.arange(len(keep))
    over_channels = lambda pairs: jnp.expand_dims(pairs, tuple(range(2, keep.ndim + 1)))
    after, seen = (over_channels(step[:, None] > step - least) for least in (0, 1))
    return jnp.where(seen, jnp.cumprod(jnp.where(after, keep[:, None], 1), axis=0), 0)


def times(factor: Float[Array, "n ..."], x: Float[Array, "#n ..."]) -> Float[Array, "n ..."]:
    """A factor a step `[n]`, or one a step and channel of x's last axis `[n, c]`, times x.

    Example:
        >>> times(jnp.array([[1.0, 2.0]]), jnp.ones((1, 3, 2)))[0, 0].tolist()
        [1.0, 2.0]
    """
    return factor.reshape(len(factor), *[1] * (x.ndim - factor.ndim), *factor.shape[1:]) * x


def for_leaves(rates: Any, tree: Any) -> Any:
    """Rates for the leaves of a tree: those of each, or one array for all of them."""
    return jax.tree.map(lambda _: rates, tree) if hasattr(rates, "shape") else rates


def for_channels(rates: Array, tree: Any, channels: int) -> Any:
    """Rates of channels `[..., c]` for the leaves of a tree, by their last axes.

    Leaves of another last axis than c, as the inner matrices of a network, have the channels' mean.
    Rates of a head, which the caller has without that axis, are those of all leaves.

    Args:
        rates: `[b, t, h, c]`, or `[b, t, h]`.
        tree: leaves `[h, ..., c]`.
        channels: c.
    """
    if rates.ndim == 3:
        return for_leaves(rates, tree)
    mean = rates.mean(-1)
    return jax.tree.map(lambda leaf: rates if leaf.shape[-1] == channels else mean, tree)


def decayed_sums(keep: Any, increments: Any, initial: Any) -> Any:
    """All states of `s_t = keep_t s_{t-1} + x_t`, as products with a small triangular matrix.

    Args:
        keep: `[n]`, or `[n, c]` for the channels of the last axis; or a tree of such, as x.
        increments: x, a tree with leaves `[n, ...]`.
        initial: s_0, leaves `[...]`.

    Returns:
        s_1 .. s_n, leaves `[n, ...]`.

    Example:
        >>> decayed_sums(jnp.full(3, 0.5), jnp.ones(3), jnp.array(2.0)).tolist()
        [2.0, 2.0, 2.0]
    """

    def sums(keep, x, start):
        axes = "tic,i...c->t...c" if keep.ndim > 1 else "ti,i...->t..."
        total = jnp.einsum(axes, transfer(keep), x, precision=lax.Precision.HIGHEST)
        return total + times(jnp.cumprod(keep, 0), start[None])

    return jax.tree.map(sums, for_leaves(keep, increments), increments, initial)


def over_blocks(
    block: Callable[[Any, Any], tuple[Any, Array]],
    carry: Any,
    inputs: Any,
    size: int,
    length: int,
) -> tuple[Any, Array]:
    """Scans over blocks of `size` steps, and the shorter one that may be left at the end.

    Args:
        block: `(carry, inputs of a block) -> (carry, out [n, ...])`.
        carry: what goes from block to block.
        inputs: a tree with leaves `[t, ...]`.
        size: steps a block.
        length: t.

    Returns:
        The last carry and all outs, `[t, ...]`.

    Example:
        >>> add = lambda carry, x: (carry + x.sum(), carry + jnp.cumsum(x))
        >>> over_blocks(add, 0.0, jnp.ones(5), 2, 5)[1].tolist()
        [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    whole = length // size * size if length > size else 0
    outs = []
    if whole:
        split = lambda x: x[:whole].reshape(whole // size, size, *x.shape[1:])
        # The backward pass keeps what enters a block: a copy of the memory, not one a token.
        step = jax.checkpoint(block, prevent_cse=False)
        carry, out = lax.scan(step, carry, jax.tree.map(split, inputs))
        outs.append(out.reshape(whole, *out.shape[2:]))
    if whole < length:
        carry, out = block(carry, jax.tree.map(lambda x: x[whole:], inputs))
        outs.append(out)
    return carry, jnp.concatenate(outs) if len(outs) > 1 else outs[0]


def per_head(function: Callable[..., Any], shared: tuple[int, ...] = ()) -> Callable[..., Any]:
    """A function of one sequence and head `[t, ...]`, for all of them `[b, t, h, ...]`.

    Trees of states have leaves `[b, h, ...]`: they are the arguments numbered in `shared`.
    """

    def mapped(*args):
        heads = [None if a is None else (0 if i in shared else 1) for i, a in enumerate(args)]
        batch = [None if a is None else 0 for a in args]
        inner = jax.vmap(function, in_axes=heads, out_axes=(0, 1))
        return jax.vmap(inner, in_axes=batch)(*args)

    return mapped
