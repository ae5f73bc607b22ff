"""The rule for the backward pass: what the two kernels of gradients are given, and the sink's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jattn.attention.gpu.key_gradient import key_gradient
from jattn.attention.gpu.plan import Floats
from jattn.attention.gpu.query_gradient import query_gradient
from jattn.attention.gpu.tiles import finite_row


def backward(plan, saved, cotangents):
    """Gradients. With w = exp(score) and out = sum_j w_j v_j / total, lse = log(total):

    dw_j / total = dout . v_j - dout . out + dlse,    w_j / total = exp(score_j - lse)
    """
    x, rest, out, lse = saved
    d_out, d_lse = cotangents
    across = lambda y: jnp.swapaxes(y, 1, 2)
    d_total = d_lse - (d_out.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)
    d_total = across(jnp.where(lse == -jnp.inf, 0, d_total))
    row = across(finite_row(lse))
    given = plan, x, rest, d_out.astype(plan.dtype), row, d_total
    d_query, of_queries = query_gradient(*given)
    d_key, d_value, of_keys = key_gradient(*given)
    d_sink = None
    if x.sink is not None:
        weigh = lambda sink: jnp.exp(jnp.broadcast_to(sink, row.shape) - row)
        d_sink = jax.vjp(weigh, x.sink)[1](d_total)[0]
    of_queries, of_keys = iter(of_queries), iter(of_keys)
    d_numbers = [
        _sum_to(next(of_keys)[:, :, None] if y.shape[3] > 1 else next(of_queries)[..., None], y)
        for y in x.numbers
    ]
    gradients = Floats(d_query, d_key, d_value, d_sink, tuple(d_numbers))
    return jax.tree.map(lambda g, like: g.astype(like.dtype), gradients, x), None


def _sum_to(gradient: Array, like: Array) -> Array:
    axes = tuple(n for n, size in enumerate(like.shape) if size == 1)
    return gradient.sum(axes, keepdims=True)
