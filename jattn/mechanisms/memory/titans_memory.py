"""Titans' long-term memory as a layer of its own: a network that learns the sequence it reads.

Paper: Titans, arXiv 2501.00663.

    S_t = eta_t S_{t-1} - theta_t grad |M_{t-1}(k_t) - v_t|^2,   M_t = (1 - a_t) M_{t-1} + S_t
    y_t = M_t(q_t)

with queries and keys of unit norm, and theta, a, eta = sigmoid(x W + b) of each token and head.
theta is scaled to at most 0.5, where a linear memory stores a value whole, and to at most 0.02 for
deeper ones, whose norm makes large gradients of small weights. M_0 is learned.

Distinctive: the state is a network and its update a gradient step with momentum ("surprise") and
weight decay (forgetting). Tokens of a block share a gradient point, so a block is done at once.

Limits: depth 1 is a matrix; then with blocks of one token and eta = 0 it is the gated delta rule.
The paper's short convolutions are `jattn.mechanisms.combinators.short_convolution`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.mechanisms import projections as p
from jattn.mechanisms.linear.recurrent_mixer import head_output, unit_norm
from jattn.mechanisms.memory.inner_loop import per_head
from jattn.mechanisms.memory.linear_memory import linear_memory
from jattn.mechanisms.memory.networks import network, network_init
from jattn.mechanisms.memory.neural_memory import (
    MemoryState,
    memory_step,
    neural_memory,
    start,
)
from jattn.mechanisms.mixer import Mechanism, Mixer

# Where the gates begin: steps of 0.12 of the largest, forgetting of 0.0025, momentum of 0.27.
# A memory that forgets faster at first learns sequences as long as in training, and no longer ones.
RATE_BIASES = (-2.0, -6.0, -1.0)
MAX_STEP, MAX_DEEP_STEP = 0.5, 0.02


def memory_init(
    key: jax.Array, dim: int, heads: int, *, depth: int, expansion: int
) -> dict[str, Any]:
    """Parameters of a memory's inputs and its initial networks, one for each head."""
    p.check_heads(dim, heads)
    projections, rates, memory = jax.random.split(key, 3)
    size = dim // heads
    make_network = lambda key: network_init(
        key, size, depth=depth, expansion=expansion, residual_norm=depth > 1
    )
    params = p.qkvo_init(projections, dim, heads)
    return params | {
        "rates": p.linear_init(rates, dim, 3 * heads),
        "rates_bias": jnp.repeat(jnp.array(RATE_BIASES), heads),
        "memory": jax.vmap(make_network)(jax.random.split(memory, heads)),
    }


def memory_queries(params: Any, x: Float[Array, "*batch m"], heads: int) -> Array:
    """What asks the memory, `[..., h, d]`."""
    return unit_norm(p.split_heads(jax.nn.silu(p.linear(x, params["query"])), heads))


def memory_inputs(
    params: Any, x: Float[Array, "*batch m"], heads: int, real: Bool[Array, "*batch"] | None = None
) -> tuple[Array, ...]:
    """Query, key, value, step size, forgetting and momentum of tokens.

    A token that is not there writes nothing and forgets nothing, and ends the surprise.
    """
    key, value = (
        p.split_heads(jax.nn.silu(p.linear(x, params[name])), heads) for name in ("key", "value")
    )
    rates = p.linear(x, params["rates"]) + params["rates_bias"].astype(x.dtype)
    rates = jax.nn.sigmoid(rates)
    rates = rates if real is None else jnp.where(real[..., None], rates, 0)
    step_size, forget, momentum = jnp.split(rates, 3, -1)
    query = memory_queries(params, x, heads)
    largest = MAX_STEP if len(params["memory"]["weights"]) == 1 else MAX_DEEP_STEP
    return query, unit_norm(key), value, largest * step_size, forget, momentum


def memory_start(params: Any, batch: int) -> MemoryState:
    """The state of every batch entry and head before the first token."""
    spread = lambda x: jnp.broadcast_to(x, (batch, *x.shape))
    return jax.vmap(jax.vmap(start))(jax.tree.map(spread, params["memory"]))


def memory_token(
    params: Any, x: Float[Array, "b m"], state: MemoryState, heads: int, refresh: int
) -> tuple[MemoryState, Float[Array, "b h d"]]:
    """Writes one token and reads it back."""
    inputs = memory_inputs(params, x, heads)
    dtype = jax.tree.leaves(state.weights)[0].dtype

    def one(state, *inputs):
        return memory_step(state, *inputs, apply_fn=network, refresh=refresh)

    state, out = jax.vmap(jax.vmap(one))(state, *(array.astype(dtype) for array in inputs))
    return state, out.astype(x.dtype)


def read_memory(weights: Any, query: Float[Array, "b t h d"]) -> Float[Array, "b t h d"]:
    """`M(q)`, without an update; weights have leaves `[b, h, ...]`."""
    read = per_head(lambda weights, query: ((), network(weights, query)), shared=(0,))
    dtype = jax.tree.leaves(weights)[0].dtype
    return read(weights, query.astype(dtype))[1].astype(query.dtype)


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    depth: int = 2,
    expansion: int = 2,
    refresh: int = 16,
) -> Mixer:
    """The memory between projections.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m, each with a memory.
        causal: there is only a causal form.
        depth: matrices of the network; from 2 on it has a residual and a norm.
        expansion: its inner dimensions over m / h.
        refresh: tokens a block, which share one gradient point.

    Returns:
        A `Mixer`; its state is a `MemoryState` with leaves `[b, h, ...]`.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, depth=1)
        >>> params = mixer.init(jax.random.key(0))
        >>> jax.jit(mixer.apply)(params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    p.check_heads(dim, heads)
    check_refresh(refresh)

    def init(key):
        return memory_init(key, dim, heads, depth=depth, expansion=expansion)

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        p.no_context("titans_memory", context)
        p.check_tokens(dim, x, None, positions)
        inputs = memory_inputs(params, x, heads, p.padding(mask, *x.shape[:2]))
        if depth == 1:
            out, *_ = linear_memory(params["memory"]["weights"][0], *inputs, refresh=refresh)
        else:
            out, *_ = neural_memory(params["memory"], *inputs, apply_fn=network, refresh=refresh)
        return head_output(params, x, out)

    def init_state(params, batch_size, max_length):
        return memory_start(params, batch_size)

    def step(params, x, state):
        state, out = memory_token(params, x, state, heads, refresh)
        return head_output(params, x[:, None], out[:, None])[:, 0], state

    return Mixer(init, apply, init_state, step)


def check_refresh(refresh: int) -> None:
    """Checks the number of tokens a block.

    Raises:
        ValueError: it is below 1.
    """
    if refresh < 1:
        raise ValueError(f"refresh: expected at least 1, got {refresh}")


MECHANISM = Mechanism(
    name="titans_memory",
    title="Titans: neural long-term memory",
    arxiv="2501.00663",
    family="memory",
    equation="S_t = eta_t S_{t-1} - theta_t grad |M(k_t) - v_t|^2,  M_t = (1 - a_t) M_{t-1} + S_t,"
    "  y_t = M_t(q_t)",
    core=neural_memory,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=("memory", "rates", "rates_bias"),
)
