"""The rule for the backward pass: what the two kernels of gradients are given, and the sink's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jattn.attention.gpu.key_gradient import key_gradient
from jattn.attention.gpu.plan import DifferentiableOperands
from jattn.attention.gpu.query_gradient import query_gradient


def backward(plan, saved, cotangents):
    """Gradients. With w = exp(score) and out = sum_j w_j v_j / total, lse = log(total):

    dw_j / total = dout . v_j - dout . out + dlse,    w_j / total = exp(score_j - lse)

    Where scores are huge, lse is too coarse to hold the total: what it lost is taken off dout.
    """
    x, rest, out, largest, total = saved
    d_out, d_lse, _ = cotangents
    across = lambda y: jnp.swapaxes(y, 1, 2)
    some = total != 0
    log_total = jnp.log(jnp.where(some, total, 1))
    lse = largest + log_total
    lost = jnp.where(some, jnp.exp((lse - largest) - log_total), 0)
    d_out = d_out.astype(jnp.float32)
    d_total = across(jnp.where(some, d_lse - (d_out * out.astype(jnp.float32)).sum(-1), 0) * lost)
    d_out = jnp.where(some[..., None], d_out, 0) * lost[..., None]
    row = across(lse)
    if plan.has_mask:  # One that is not finite and sees keys has weights that are not.
        x = x._replace(query=jnp.where(jnp.isfinite(x.query), x.query, 0))
    given = plan, x, rest, d_out.astype(plan.dtype), row, d_total
    d_query, of_queries = query_gradient(*given)
    d_key, d_value, of_keys = key_gradient(*given)
    d_sink = None
    if x.sink is not None:
        weigh = lambda sink: jnp.exp(jnp.broadcast_to(sink, row.shape) - row)
        d_sink = jax.vjp(weigh, x.sink)[1](d_total)[0]
    of_queries, of_keys = iter(of_queries), iter(of_keys)
    d_score_mod_operands = [
        _sum_to(next(of_keys)[:, :, None] if y.shape[3] > 1 else next(of_queries)[..., None], y)
        for y in x.score_mod_operands
    ]
    gradients = DifferentiableOperands(d_query, d_key, d_value, d_sink, tuple(d_score_mod_operands))
    return jax.tree.map(lambda g, like: g.astype(like.dtype), gradients, x), None


def _sum_to(gradient: Array, like: Array) -> Array:
    axes = tuple(n for n, size in enumerate(like.shape) if size == 1)
    return gradient.sum(axes, keepdims=True)
