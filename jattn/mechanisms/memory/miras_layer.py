"""The frame of Miras' layers, which differ in their loss and their retention."""

import functools

import jax
import jax.numpy as jnp

from jattn.mechanisms import projections as p
from jattn.mechanisms.linear.recurrent_mixer import head_output, unit_norm
from jattn.mechanisms.memory.linear_memory import linear_memory
from jattn.mechanisms.memory.miras import Rule, miras_scan, miras_step, slope, start
from jattn.mechanisms.memory.networks import network, network_init
from jattn.mechanisms.mixer import Mixer

PARAMETERS = ("gate", "memory", "rates_bias", "rates_down", "rates_up")
# Where the gates begin: 0.98 of the past is kept, errors pull with 0.12, thresholds are 0.7.
BIASES = (4.0, -2.0, 0.0)
MAX_DEEP_ETA = 0.04


def miras_layer(
    name: str,
    rule: Rule,
    *,
    dim: int,
    heads: int,
    depth: int,
    expansion: int,
    chunk: int,
    rank: int,
) -> Mixer:
    """Projections, the memory of a rule, a norm of each head, and an output gate.

    alpha is one number a head, eta and delta one a channel: `sigmoid`, `sigmoid` and `softplus` of
    `x W_down W_up + b`. In deep memories eta is at most 0.04: their norm makes large gradients of
    small weights.

    Args:
        name: the mechanism's name, for messages.
        rule: its loss and retention.
        dim: model dimension m.
        heads: heads h, a divisor of m, each with a memory.
        depth: matrices of the network; from 2 on it has a residual and a norm.
        expansion: its inner dimensions over m / h.
        chunk: tokens whose gradients are taken at one point.
        rank: inner dimension of the gates.

    Raises:
        ValueError: a size that does not fit.
    """
    p.check_heads(dim, heads)
    for field, value in (("chunk", chunk), ("rank", rank)):
        if value < 1:
            raise ValueError(f"{field}: expected at least 1, got {value}")
    size = dim // heads
    # Those of a threshold are there only where it is used.
    counts = (heads, dim, dim) if rule.loss in ("huber", "huber_norm", "robust") else (heads, dim)
    make_network = lambda key: network_init(
        key, size, depth=depth, expansion=expansion, residual_norm=depth > 1
    )

    def init(key):
        keys = jax.random.split(key, 5)
        return p.qkvo_init(keys[0], dim, heads) | {
            "gate": p.linear_init(keys[1], dim, dim),
            "rates_down": p.linear_init(keys[2], dim, rank),
            "rates_up": p.linear_init(keys[3], rank, sum(counts)),
            "rates_bias": jnp.concatenate(
                [jnp.full(n, b) for n, b in zip(counts, BIASES, strict=False)]
            ),
            "memory": jax.vmap(make_network)(jax.random.split(keys[4], heads)),
        }

    def inputs(params, x, real=None):
        query, key, value = (
            p.split_heads(jax.nn.silu(p.linear(x, params[n])), heads)
            for n in ("query", "key", "value")
        )
        rates = p.linear(p.linear(x, params["rates_down"]), params["rates_up"])
        rates = rates + params["rates_bias"].astype(x.dtype)
        alpha, eta = (
            jax.nn.sigmoid(rates[..., :heads]),
            jax.nn.sigmoid(rates[..., heads:][..., :dim]),
        )
        delta = (
            jax.nn.softplus(rates[..., heads + dim :]) if len(counts) > 2 else jnp.ones_like(eta)
        )
        if real is not None:  # what is not there writes nothing and forgets nothing
            alpha = jnp.where(real[..., None], alpha, 1)
            eta = jnp.where(real[..., None], eta, 0)
        eta = (1 if depth == 1 else MAX_DEEP_ETA) * eta
        eta, delta = (p.split_heads(r, heads) for r in (eta, delta))
        return unit_norm(query), unit_norm(key), value, alpha, eta, delta

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        p.no_context(name, context)
        p.check_tokens(dim, x, None, positions)
        arrays = inputs(params, x, p.padding(mask, *x.shape[:2]))
        query, key, value, alpha, eta, delta = arrays
        if depth == 1 and rule.retention == "l2":
            out, *_ = linear_memory(
                params["memory"]["weights"][0], query, key, value, eta, 1 - alpha, refresh=chunk,
                slope=jax.vmap(functools.partial(slope, rule)), slope_inputs=delta,
            )  # fmt: skip
        else:
            out, _ = miras_scan(
                query, key, value, params0=params["memory"], alpha=alpha, eta=eta, delta=delta,
                apply_fn=network, rule=rule, chunk=chunk,
            )  # fmt: skip
        return head_output(params, x, out)

    def init_state(params, batch_size, max_length):
        spread = lambda x: jnp.broadcast_to(x, (batch_size, *x.shape))
        return jax.vmap(jax.vmap(start))(jax.tree.map(spread, params["memory"]))

    def step(params, x, state):
        one = functools.partial(miras_step, apply_fn=network, rule=rule, chunk=chunk)
        dtype = jax.tree.leaves(state.state)[0].dtype
        token = (array.astype(dtype) for array in inputs(params, x))
        state, out = jax.vmap(jax.vmap(one))(state, *token)
        return head_output(params, x[:, None], out[:, None].astype(x.dtype))[:, 0], state

    return Mixer(init, apply, init_state, step)
