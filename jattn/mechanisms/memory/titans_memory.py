"""Titans' long-term memory as a layer of its own: a network that learns the sequence it reads.

Paper: Titans, arXiv 2501.00663.

    S_t = eta_t S_{t-1} - theta_t grad |M_{t-1}(k_t) - v_t|^2,   M_t = (1 - a_t) M_{t-1} + S_t
    y_t = M_t(q_t)

with queries and keys of unit norm, and theta, a, eta = sigmoid(x W + b) of each token and head;
theta is one for each matrix of the network and one for its gain. theta is scaled to at most 0.5,
where a linear memory stores a value whole, and to at most 0.02 for deeper ones, whose norm makes
large gradients of small weights. A deep memory's values are divided by their root mean square: what
its norm puts out is of that size. M_0 is learned.

Distinctive: the state is a network and its update a gradient step with momentum ("surprise") and
weight decay (forgetting). Tokens of a block share a gradient point, so a block is done at once.

Limits: depth 1 is a matrix; then with blocks of one token and eta = 0 it is the gated delta rule.
The paper's short convolutions are `jattn.mechanisms.combinators.short_convolution`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count, check_flag, check_number
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.frames.recurrent_mixer import gated_heads
from jattn.mechanisms.layers.heads import project_output, project_qkv, qkvo_init, split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import rms_norm, unit_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.memory.inner_loop import for_channels, per_head
from jattn.mechanisms.memory.linear_memory import linear_memory
from jattn.mechanisms.memory.networks import network, network_init
from jattn.mechanisms.memory.neural_memory import (
    MemoryState,
    memory_step,
    neural_memory,
    start,
)
from jattn.mechanisms.mixer import Mixer, Parts

# Where the gates begin: steps of 0.12 of the largest, forgetting of 0.0025, momentum of 0.27.
# A memory that forgets faster at first learns sequences as long as in training, and no longer ones.
STEP_BIAS, FORGET_BIAS, MOMENTUM_BIAS = -2.0, -6.0, -1.0
MAX_STEP, MAX_DEEP_STEP = 0.5, 0.02
FORGETTING = ("head", "channel", "none")


class MemoryOptions(NamedTuple):
    """What a memory is; see `make`."""

    depth: int = 2
    expansion: int = 4
    refresh: int = 16
    residual_norm: bool = True
    forgetting: str = "head"
    momentum: bool = True
    clip: float | None = None

    def check(self) -> None:
        """Checks them.

        Raises:
            ValueError: one is not what it should be.
        """
        for name in ("depth", "expansion", "refresh"):
            check_count(name, getattr(self, name))
        for name in ("residual_norm", "momentum"):
            check_flag(name, getattr(self, name))
        check_choice("forgetting", self.forgetting, FORGETTING)
        if self.clip is not None:
            check_number("clip", self.clip, least=0)

    def counts(self, leaves: int, heads: int, dim: int) -> tuple[int, int, int]:
        """How many step sizes, forgetting rates and momenta a token has."""
        forget = {"head": heads, "channel": dim, "none": 0}[self.forgetting]
        return leaves * heads, forget, heads * self.momentum


def memory_init(key: jax.Array, dim: int, heads: int, options: MemoryOptions) -> dict[str, Any]:
    """Parameters of a memory's inputs and its initial networks, one for each head."""
    check_heads(dim, heads)
    projections, rates, memory = jax.random.split(key, 3)
    size = dim // heads
    make_network = lambda key: network_init(
        key,
        size,
        depth=options.depth,
        expansion=options.expansion,
        residual_norm=options.residual_norm and options.depth > 1,
    )
    networks = jax.vmap(make_network)(jax.random.split(memory, heads))
    counts = options.counts(len(jax.tree.leaves(networks)), heads, dim)
    biases = (STEP_BIAS, FORGET_BIAS, MOMENTUM_BIAS)
    return qkvo_init(projections, dim, heads) | {
        "rates": linear_init(rates, dim, sum(counts)),
        "rates_bias": jnp.repeat(
            jnp.array(biases), jnp.array(counts), total_repeat_length=sum(counts)
        ),
        "memory": networks,
    }


def memory_queries(query: Float[Array, "*batch hd"], heads: int) -> Float[Array, "*batch h d"]:
    """Queries of the memory, from their linear map."""
    return unit_norm(split_heads(jax.nn.silu(query), heads))


def memory_inputs(
    params: Any,
    maps: dict[str, Array],
    x: Float[Array, "*batch m"],
    heads: int,
    options: MemoryOptions,
    real: Bool[Array, "*batch"] | None = None,
) -> tuple[Any, ...]:
    """Query, key, value, step sizes and forgetting of the leaves of the network, and momentum.

    A token that is not there writes nothing and forgets nothing, and ends the surprise.

    Args:
        params: as `memory_init` makes them.
        maps: linear maps of the tokens, those of `project_qkv`.
        x: tokens.
        heads: h.
        options: what the memory is.
        real: which are there; None: all are.
    """
    memory = params["memory"]
    leaves, tree = jax.tree.flatten(memory)
    key, value = (split_heads(jax.nn.silu(maps[name]), heads) for name in ("key", "value"))
    if options.depth > 1:
        value = rms_norm(value)
    rates = linear(x, params["rates"]) + params["rates_bias"].astype(x.dtype)
    rates = jax.nn.sigmoid(rates)
    rates = rates if real is None else jnp.where(real[..., None], rates, 0)
    steps, forgets, _ = options.counts(len(leaves), heads, heads * value.shape[-1])
    step_size, forget, momentum = jnp.split(rates, (steps, steps + forgets), -1)
    step_size = (MAX_STEP if options.depth == 1 else MAX_DEEP_STEP) * step_size
    step_sizes = jax.tree.unflatten(tree, jnp.split(step_size, len(leaves), -1))
    nothing = jnp.zeros((*x.shape[:-1], heads), x.dtype)
    if options.forgetting == "none":
        forget = nothing
    if options.forgetting == "channel":
        forget = split_heads(forget, heads)
    forget = for_channels(forget, memory, value.shape[-1])
    query = memory_queries(maps["query"], heads)
    return (
        query,
        unit_norm(key),
        value,
        step_sizes,
        forget,
        momentum if options.momentum else nothing,
    )


def memory_start(params: Any, batch: int) -> MemoryState:
    """The state of every batch entry and head before the first token."""
    broadcast = lambda x: jnp.broadcast_to(x, (batch, *x.shape))
    return jax.vmap(jax.vmap(start))(jax.tree.map(broadcast, params["memory"]))


def memory_token(
    params: Any,
    maps: dict[str, Float[Array, "b 1 c"]],
    x: Float[Array, "b 1 m"],
    state: MemoryState,
    heads: int,
    options: MemoryOptions,
) -> tuple[MemoryState, Float[Array, "b 1 h d"]]:
    """Writes one token and reads it back."""
    dtype = jax.tree.leaves(state.weights)[0].dtype
    inputs = memory_inputs(params, maps, x, heads, options)
    inputs = jax.tree.map(lambda array: array[:, 0].astype(dtype), inputs)

    def one(state, *inputs):
        return memory_step(
            state, *inputs, apply_fn=network, refresh=options.refresh, clip=options.clip
        )

    state, out = jax.vmap(jax.vmap(one))(state, *inputs)
    return state, out[:, None].astype(x.dtype)


def read_memory(weights: Any, query: Float[Array, "b t h d"]) -> Float[Array, "b t h d"]:
    """`M(q)`, without an update; weights have leaves `[b, h, ...]`."""
    read = per_head(lambda weights, query: ((), network(weights, query)), shared=(0,))
    dtype = jax.tree.leaves(weights)[0].dtype
    return read(weights, query.astype(dtype))[1].astype(query.dtype)


def run_memory(
    memory: Any, inputs: tuple[Any, ...], options: MemoryOptions, initial: Any = None
) -> tuple[Float[Array, "b t h d"], Any, Any]:
    """Reads, M and S of `neural_memory`; of a matrix by `linear_memory`.

    Args:
        memory: the initial networks.
        inputs: those of `memory_inputs`.
        options: what the memory is.
        initial: M and S to go on from at a block's border.
    """
    if options.depth > 1 or options.clip is not None:
        return neural_memory(
            memory, *inputs, apply_fn=network, refresh=options.refresh, clip=options.clip,
            initial=initial,
        )  # fmt: skip
    matrix = lambda tree: tree["weights"][0]
    query, key, value, step_size, forget, momentum = inputs
    out, *state = linear_memory(
        matrix(memory), query, key, value, matrix(step_size), matrix(forget), momentum,
        refresh=options.refresh, initial=None if initial is None else tuple(map(matrix, initial)),
    )  # fmt: skip
    weights, surprise = ({"weights": [state]} for state in state)
    return out, weights, surprise


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    depth: int = 2,
    expansion: int = 4,
    refresh: int = 16,
    residual_norm: bool = True,
    forgetting: str = "head",
    momentum: bool = True,
    clip: float | None = None,
) -> Mixer:
    """The memory between projections.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m, each with a memory.
        causal: there is only a causal form.
        depth: matrices of the network.
        expansion: its inner dimensions over m / h.
        refresh: tokens a block, which share one gradient point.
        residual_norm: whether a network of 2 matrices and more is `x + norm(mlp(x))`; else it is
            the plain `mlp(x)`.
        forgetting: `"head"` for one rate a head, `"channel"` for one a channel (matrices inside
            the network forget at their mean), or `"none"`.
        momentum: whether there is any.
        clip: the largest norm of a token's gradient; None: there is none.

    Returns:
        A `Mixer`; its state is a `MemoryState` with leaves `[b, h, ...]`.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, depth=1)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    options = MemoryOptions(depth, expansion, refresh, residual_norm, forgetting, momentum, clip)
    options.check()

    def init(key):
        return memory_init(key, dim, heads, options)

    def apply(parts, params, given):
        maps = parts.project(params, given.x, given.x)
        inputs = memory_inputs(params, maps, given.x, heads, options, given.real)
        out = run_memory(params["memory"], inputs, options)[0]
        return parts.output(params, gated_heads(params, given.x, out), given.x)

    def init_state(parts, params, batch_size, max_length, dtype):
        return memory_start(params, batch_size)

    def step(parts, params, x, state):
        x = x[:, None]
        state, out = memory_token(params, parts.project(params, x, x), x, state, heads, options)
        return parts.output(params, gated_heads(params, x, out), x)[:, 0], state

    return framed_parts(
        "titans_memory",
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        init_state=init_state,
        step=step,
        takes="row",
        causal=True,
    )


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
    documents="never",
    parameters=("memory", "rates", "rates_bias"),
)
