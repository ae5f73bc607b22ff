"""Flow-Attention: linear attention whose sources compete for what they may send.

Paper: Flowformer, arXiv 2202.06258.

    I_i = f(q_i).sum_j f(k_j),         O_j = f(k_j).sum_i f(q_i),        f = sigmoid
    I^_i = f(q_i).sum_j f(k_j) / O_j,  O^_j = f(k_j).sum_i f(q_i) / I_i
    o_i = sigmoid(I^_i t / s) sum_j f(q_i).f(k_j) / I_i  s softmax_j(min(O^_j, 1)) v_j

Weights are a flow from sources (keys) to sinks (queries). With what each sink takes in fixed to 1,
O^_j is what source j gives, and the sources compete with it; with what each source gives fixed
to 1, I^_i is what sink i takes, and gates its output.

Distinctive: competition and a gate out of sums alone, without parameters, at linear cost.

Limits: sources that all give the same compete to 1, and gated linear attention is left. Causally
the sums are over the tokens so far, n of them: 1 / I and 1 / O are multiplied and I^ and O^ divided
by n, and s is n. A source's share is then fixed when it comes, by the sinks it has met. With c_j
for what the softmax makes of source j, no output exceeds max |c_j v_j|.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_number, check_shape
from jattn.mechanisms.frames.linear_mixer import linear_mixer
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence import recur


class FlowState(NamedTuple):
    """State of causal flow attention: sums over the tokens so far.

    Attributes:
        count: how many tokens.
        key: sum of f(k).
        query: sum of f(q).
        key_share: sum of f(k) n / O.
        query_share: sum of f(q) n / I.
        competition: sum of exp(O^).
        memory: sum of f(k) (c v)^T.
    """

    count: Int[Array, " b"]
    key: Float[Array, "b h d"]
    query: Float[Array, "b h d"]
    key_share: Float[Array, "b h d"]
    query_share: Float[Array, "b h d"]
    competition: Float[Array, "b h"]
    memory: Float[Array, "b h d e"]


def empty_state(batch: int, heads: int, size: int, value_size: int, dtype: Any) -> FlowState:
    """The state before the first token."""
    sums = jnp.zeros((batch, heads, size), dtype)
    memory = jnp.zeros((batch, heads, size, value_size), dtype)
    count = jnp.zeros((batch,), jnp.int32)
    return FlowState(count, sums, sums, sums, sums, sums[..., 0], memory)


class Flows(NamedTuple):
    """Flows of each sink and source before the clip, and the sums they come from.

    Attributes:
        incoming: I.
        outgoing: O.
        conserved_incoming: I^.
        conserved_outgoing: O^.
        sums: of f(k), f(q), and both over the flows; each `[b, 1, h, d]`, or causally of all
            tokens so far, `[b, t, h, d]`.
    """

    incoming: Float[Array, "b t h"]
    outgoing: Float[Array, "b s h"]
    conserved_incoming: Float[Array, "b t h"]
    conserved_outgoing: Float[Array, "b s h"]
    sums: tuple[Array, Array, Array, Array]


def flows(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    *,
    count: Float[Array, "b t"] | None = None,
    state: FlowState | None = None,
    eps: float = 1e-6,
) -> Flows:
    """Flows between features that are positive, or 0 where there is no token.

    Args:
        query: f(q).
        key: f(k).
        count: tokens up to each one, in the causal form; None if not causal.
        state: causal only; the sums before the first token.
        eps: added to both vectors of every product.

    Returns:
        `Flows`.

    Example:
        >>> x = jax.nn.sigmoid(jax.random.normal(jax.random.key(0), (1, 5, 2, 4)))
        >>> flows(x, x).conserved_outgoing.sum(1).round(3).tolist()
        [[5.0, 5.0]]
    """
    scale = 1.0 if count is None else count[..., None]

    def total(x, name):
        if count is None:
            return x.sum(1, keepdims=True)
        sums = jnp.cumsum(x, 1)
        return sums if state is None else sums + getattr(state, name)[:, None]

    def flow(x, sums):
        return ((x + eps) * (sums + eps)).sum(-1)

    keys, queries = total(key, "key"), total(query, "query")
    incoming, outgoing = flow(query, keys), flow(key, queries)
    key_shares = total(key * (scale / outgoing)[..., None], "key_share")
    query_shares = total(query * (scale / incoming)[..., None], "query_share")
    return Flows(
        incoming, outgoing,
        flow(query, key_shares) / scale, flow(key, query_shares) / scale,
        (keys, queries, key_shares, query_shares),
    )  # fmt: skip


def flow_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    causal: bool = False,
    eps: float = 1e-6,
    mask: Bool[Array, "b s"] | None = None,
    query_mask: Bool[Array, "b t"] | None = None,
    initial_state: FlowState | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair: see Returns.
    """Flow-Attention on query, key and value arrays.

    Args:
        query: `[b, t, h, d]`, before the sigmoid.
        key: `[b, s, g, d]`, before the sigmoid, g dividing h; s = t if `causal`.
        value: `[b, s, g, e]`.
        causal: token t sees tokens <= t.
        eps: added to both vectors of every product that is a flow, > 0.
        mask: True for real keys; default all are. If `causal`, for real tokens.
        query_mask: True for real queries, as every query takes from the flow; default all are.
            Not for `causal`.
        initial_state: causal only; the state before the first token.
        return_state: causal only; return the state after the last token, too.

    Returns:
        `[b, t, h, e]` in the query's dtype; with `return_state` the pair of it and a `FlowState`.

    Raises:
        ValueError: shapes or arguments that do not fit.

    Reference:
        arXiv 2202.06258.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 10, 2, 4))
        >>> flow_attention(x, x, x, causal=True).shape
        (1, 10, 2, 4)
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b t g d" if causal else "b s g d", sizes)
    check_shape("value", value, "b t g e" if causal else "b s g e", sizes)
    if causal and query_mask is not None:
        raise ValueError("query_mask: expected None if causal, where mask is of all tokens")
    if not causal and (initial_state is not None or return_state):
        raise ValueError("causal: expected True with initial_state or return_state, got False")
    dtype = query.dtype
    wide = jnp.promote_types(dtype, jnp.float32)
    shared = sizes["h"] // sizes["g"]
    query, key = (jax.nn.sigmoid(x.astype(wide)) for x in (query, key))
    key, value = (jnp.repeat(x.astype(wide), shared, axis=2) for x in (key, value))
    real = jnp.ones(key.shape[:2], bool) if mask is None else mask
    sinks = real if causal else query_mask
    key = jnp.where(real[..., None, None], key, 0)
    if sinks is not None:
        query = jnp.where(sinks[..., None, None], query, 0)

    counts = jnp.cumsum(real.astype(jnp.int32), 1)
    if causal:
        counts = counts if initial_state is None else counts + initial_state.count[:, None]
        sources = jnp.maximum(counts, 1).astype(wide)
        found = flows(query, key, count=sources, state=initial_state, eps=eps)
        ratio = 1.0
    else:
        found = flows(query, key, eps=eps)
        sources = jnp.maximum(counts[:, -1:], 1).astype(wide)
        present = query.shape[1] if sinks is None else sinks.sum(1, keepdims=True)
        ratio = (present / sources)[..., None]
    # Within [-1, 1] the exponential is safe without a maximum, which causally there is none of.
    weight = jnp.exp(jnp.clip(found.conserved_outgoing, -1, 1)) * real[..., None]
    if causal:
        weights = jnp.cumsum(weight, 1)
        if initial_state is not None:
            weights = weights + initial_state.competition[:, None]
    else:
        weights = weight.sum(1, keepdims=True)
    competition = sources[..., None] * weight / jnp.where(weights == 0, 1, weights)

    query = query / found.incoming[..., None]
    value = value * competition[..., None]
    state = None
    if causal:
        memory = None if initial_state is None else initial_state.memory
        out, memory = recur(query, key, value, initial_state=memory, return_state=True)
        sums = [x[:, -1] for x in found.sums]
        state = FlowState(counts[:, -1], *sums, competition=weights[:, -1], memory=memory)
    else:
        out = jnp.einsum("bthd,bhde->bthe", query, jnp.einsum("bshd,bshe->bhde", key, value))
    out = (out * jax.nn.sigmoid(found.conserved_incoming * ratio)[..., None]).astype(dtype)
    return (out, state) if return_state else out


def make(*, dim: int, heads: int, causal: bool = False, eps: float = 1e-6) -> Mixer:
    """Flow-Attention between projections.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: token t sees tokens <= t; then there is no `context`.
        eps: as in `flow_attention`.

    Returns:
        A `Mixer`; its state is a `FlowState`.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    check_number("eps", eps, above=0)
    size = dim // heads

    def core(params, query, key, value, context, **carry):
        # Padding of x takes from the flow no more than it gives to it.
        sinks = None if context.crossed or causal else context.real
        return flow_attention(
            query, key, value,
            causal=causal, eps=eps, mask=context.real, query_mask=sinks, **carry,
        )  # fmt: skip

    return linear_mixer(
        "flow_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        empty_state=lambda batch, dtype: empty_state(batch, heads, size, size, dtype),
        documents=False,
    )


MECHANISM = Mechanism(
    name="flow_attention",
    title="Flow-Attention (Flowformer)",
    arxiv="2202.06258",
    family="linear",
    equation="o_i = sigmoid(I^_i) sum_j f(q_i).f(k_j) / I_i  s softmax_j(O^_j) v_j,  f = sigmoid",
    core=flow_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="linear",
    equivariant=True,
    documents="never",
)
