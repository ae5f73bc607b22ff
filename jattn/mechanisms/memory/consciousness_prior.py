"""The consciousness prior: of all there is, a few elements are thought of, and only those are read.

Paper: The Consciousness Prior, arXiv 1709.08568. It names functions and leaves their form open;
here each has the smallest form that does what it should.

    c_t = C(h_t, c_{t-1}, z_t)    the m elements of h_t highest in f.k_j / sqrt(d) + z_j
    V(h, c)                       whether a thought holds: h read at the thought's keys, against
                                  its values

where z is noise; h_t is the state, keys and values of many elements; f, the focus, comes from the
thought before. Statements that are useful involve few variables at a time: hence the bottleneck.

As a mixer, the elements are tokens and a head has m thoughts. Causally they are a working memory:
of the m that are held and the token that comes, the m nearest to the focus stay, and the token
attends to those. Not causally they are chosen once, and all tokens attend to the same m. Scores
count in the reading, too, and so learn.

Distinctive: hard selection that all readers share; the state does not grow with what was seen.

Limits: with a focus of zero and as many thoughts as tokens it is softmax attention.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend
from jattn.checks import check_count, check_number, check_shape
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Parts


class Thought(NamedTuple):
    """The elements that were selected.

    Attributes:
        key: `[..., m, d]`.
        value: `[..., m, e]`.
        score: of each, without noise, `[..., m]`.
        held: False where there were fewer elements than thoughts, `[..., m]`.
        index: which they were, `[..., m]`.
        weights: softmax of the scores over the selected, zero elsewhere, `[..., n]`.
    """

    key: Float[Array, "*batch m d"]
    value: Float[Array, "*batch m e"]
    score: Float[Array, "*batch m"]
    held: Bool[Array, "*batch m"]
    index: Int[Array, "*batch m"]
    weights: Float[Array, "*batch n"]


def select_bottleneck(
    key: Float[Array, "*batch n d"],
    value: Float[Array, "*batch n e"],
    focus: Float[Array, "*batch d"],
    size: int,
    *,
    noise: Float[Array, "*batch n"] | None = None,
    real: Bool[Array, "*batch n"] | None = None,
    straight_through: bool = True,
) -> Thought:
    """Selects the `size` elements whose keys are nearest to the focus, without replacement.

    Args:
        key: of all elements, `[..., n, d]`.
        value: `[..., n, e]`.
        focus: what is attended to, `[..., d]`; see `focus_of`.
        size: m, at least 1; no more than n are selected.
        noise: z, added to scores for the selection. Gumbel noise times a temperature samples from
            the softmax of scores / temperature, without replacement.
        real: False where there is no element; default everywhere True.
        straight_through: gradients of the weights as if nothing had been left out, so that what
            was not selected learns to be; values then pass gradients to the scores, too. Otherwise
            the derivative of what is computed.

    Returns:
        A `Thought`.

    Raises:
        ValueError: a size below 1, or shapes that do not fit.

    Reference:
        arXiv 1709.08568, sections 2.1 and 2.2.

    Example:
        >>> key = jnp.array([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0]])
        >>> select_bottleneck(key, key, jnp.array([1.0, 0.0]), 2).index.tolist()
        [1, 2]
    """
    check_count("size", size)
    sizes: dict[str, int] = {}
    check_shape("key", key.reshape(-1, *key.shape[-2:]), "batch n d", sizes)
    check_shape("value", value.reshape(-1, *value.shape[-2:]), "batch n e", sizes)
    check_shape("focus", focus.reshape(-1, focus.shape[-1]), "batch d", sizes)
    size = min(size, sizes["n"])
    score = jnp.einsum("...nd,...d->...n", key, focus) * sizes["d"] ** -0.5
    exists = jnp.ones(score.shape, bool) if real is None else real
    rank = score if noise is None else score + noise
    rank = lax.stop_gradient(jnp.where(exists, rank, -jnp.inf))
    best, index = lax.top_k(rank, size)
    chosen = (index[..., None] == jnp.arange(sizes["n"])).any(-2) & exists
    weights = jax.nn.softmax(score, where=chosen)
    pick = lambda x: jnp.take_along_axis(x, index[..., None], axis=-2)
    values = pick(value)
    if straight_through:
        soft = jax.nn.softmax(score, where=exists)
        weights = lax.stop_gradient(weights - soft) + soft
        gate = jnp.take_along_axis(weights, index, axis=-1)
        values = values * (1 + gate - lax.stop_gradient(gate))[..., None]
    kept = jnp.take_along_axis(score, index, axis=-1)
    return Thought(pick(key), values, kept, best > -jnp.inf, index, weights)


def focus_of(
    previous: Float[Array, "*batch m d"],
    held: Bool[Array, "*batch m"] | None = None,
) -> Float[Array, "*batch d"]:
    """The mean key of the thought before, zero if there is none.

    Example:
        >>> focus_of(jnp.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [0.5, 0.5]
    """
    if held is None:
        return previous.mean(-2)
    total = jnp.where(held[..., None], previous, 0).sum(-2)
    return total / jnp.maximum(held.sum(-1, keepdims=True), 1)


def verify(
    key: Float[Array, "b n d"],
    value: Float[Array, "b n e"],
    thought_key: Float[Array, "b m d"],
    thought_value: Float[Array, "b m e"],
    *,
    scale: float | None = None,
) -> Float[Array, "b m"]:
    """Measures how far each thought holds in a state: cosine of its value and what is there.

    Args:
        key, value: the state, `[b, n, d]` and `[b, n, e]`.
        thought_key, thought_value: `[b, m, d]` and `[b, m, e]`.
        scale: of the reading's scores; default `d**-0.5`. The larger, the nearer to looking up.

    Returns:
        `[b, m]`, in [-1, 1].

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> keys, values = 9.0 * jnp.eye(3)[None], jnp.arange(6.0).reshape(1, 3, 2) - 2
        >>> verify(keys, values, keys[:, 1:], values[:, 1:]).round(3).tolist()
        [[1.0, 1.0]]
    """
    sizes: dict[str, int] = {}
    check_shape("key", key, "b n d", sizes)
    check_shape("value", value, "b n e", sizes)
    check_shape("thought_key", thought_key, "b m d", sizes)
    check_shape("thought_value", thought_value, "b m e", sizes)
    read = attend(thought_key[:, :, None], key[:, :, None], value[:, :, None], scale=scale)[:, :, 0]
    squares = (read**2).sum(-1) * (thought_value**2).sum(-1)
    return (read * thought_value).sum(-1) * lax.rsqrt(squares + 1e-12)


def verifier_loss(
    key: Float[Array, "b n d"],
    value: Float[Array, "b n e"],
    thought_key: Float[Array, "b m d"],
    thought_value: Float[Array, "b m e"],
    *,
    scale: float | None = None,
    temperature: float = 0.1,
) -> Float[Array, ""]:
    """Contrastive loss: a thought should hold in its own state, not in others of the batch.

        -mean_i log softmax_j(mean_m V(h_j, c_i) / temperature) at j = i

    Args:
        key, value: states, later ones if thoughts are to predict, `[b, n, d]` and `[b, n, e]`.
        thought_key, thought_value: the thought of each, `[b, m, d]` and `[b, m, e]`.
        scale: as in `verify`.
        temperature: of the contrast.

    Returns:
        A scalar; log(b) if thoughts tell nothing.

    Example:
        >>> x = jnp.ones((4, 3, 2))
        >>> round(float(verifier_loss(x, x, x[:, :1], x[:, :1])), 4)  # log(4)
        1.3863
    """
    b = len(key)

    def against_all(thought_key, thought_value):
        every = lambda x: jnp.broadcast_to(x, (b, *x.shape))
        return verify(key, value, every(thought_key), every(thought_value), scale=scale).mean(-1)

    agreement = jax.vmap(against_all)(thought_key, thought_value) / temperature
    return -jnp.diagonal(jax.nn.log_softmax(agreement, -1)).mean()


class Working(NamedTuple):
    """State of the causal mixer: the thoughts that it holds in mind.

    Attributes:
        key: `[b, h, m, d]`.
        value: `[b, h, m, e]`.
        held: which thoughts are held, `[b, h, m]`.
    """

    key: Float[Array, "b h m d"]
    value: Float[Array, "b h m e"]
    held: Bool[Array, "b h m"]


def renew(
    memory: Working,
    key: Float[Array, "b h d"],
    value: Float[Array, "b h e"],
    start: Float[Array, "h d"],
    *,
    noise: Float[Array, "b h n"] | None = None,
    real: Bool[Array, " b"] | None = None,
) -> tuple[Working, Float[Array, "b h m"]]:
    """One token comes: the thoughts that stay, and their scores.

    Args:
        memory: the m thoughts before.
        key, value: of the token.
        start: the part of the focus that does not depend on thoughts.
        noise: for the selection, n = m + 1.
        real: False where there is no token.

    Returns:
        The thoughts after, and their scores `[b, h, m]`.
    """
    join = lambda old, new: jnp.concatenate([old, new[:, :, None].astype(old.dtype)], 2)
    arrived = jnp.ones(key.shape[:2], bool)
    if real is not None:
        arrived &= real[:, None]
    focus = start.astype(memory.key.dtype) + focus_of(memory.key, memory.held)
    thought = select_bottleneck(
        join(memory.key, key), join(memory.value, value), focus, memory.held.shape[-1],
        noise=noise, real=join(memory.held, arrived), straight_through=False,
    )  # fmt: skip
    return Working(thought.key, thought.value, thought.held), thought.score


def make(*, dim: int, heads: int, causal: bool = False, size: int = 4, noise: float = 1.0) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m; each selects for itself.
        causal: thoughts are of tokens so far; the mixer then streams.
        size: thoughts of a head.
        noise: temperature of the Gumbel noise on selection, where `apply` is given a key.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, causal=True, size=3)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    check_count("size", size)
    check_number("noise", noise, least=0)
    head = dim // heads

    def init(key):
        shared, own = jax.random.split(key)
        start = jax.random.normal(own, (heads, head))
        return qkvo_init(shared, dim, heads) | {"focus": start}

    def drawn(key, shape):
        return None if key is None else noise * jax.random.gumbel(key, shape)

    def read(query, thoughts, scores):
        """Queries `[b, t, h, d]` and their own thoughts `[b, t, h, m, ...]`."""
        each = lambda x: x.reshape(-1, *x.shape[2:])
        keys, values = (jnp.swapaxes(each(x), 1, 2) for x in (thoughts.key, thoughts.value))
        out = attend(
            each(query)[:, None], keys, values,
            mask=each(thoughts.held)[:, :, None], bias=each(scores)[:, :, None],
        )  # fmt: skip
        return out.reshape(query.shape)

    def among_all(params, query, key, value, given):
        real = given.real
        key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
        focus = jnp.broadcast_to(params["focus"].astype(key.dtype), (*key.shape[:2], head))
        exists = None if real is None else jnp.broadcast_to(real[:, None], key.shape[:3])
        thought = select_bottleneck(
            key, value, focus, size,
            noise=drawn(given.key, key.shape[:3]), real=exists, straight_through=False,
        )  # fmt: skip
        return attend(
            query, jnp.swapaxes(thought.key, 1, 2), jnp.swapaxes(thought.value, 1, 2),
            mask=thought.held[:, :, None], bias=thought.score[:, :, None],
        )  # fmt: skip

    def one_by_one(params, query, key, value, given):
        def turn(memory, now):
            key, value, real, start, noise = now
            if start is not None:  # a document knows of none before
                memory = memory._replace(held=memory.held & ~start[:, None, None])
            memory, scores = renew(memory, key, value, params["focus"], noise=noise, real=real)
            return memory, (memory, scores)

        batch, length = key.shape[:2]
        noises = drawn(given.key, (length, batch, heads, size + 1))
        first = lambda x: None if x is None else jnp.moveaxis(x, 1, 0)
        inputs = (*map(first, (key, value, given.real, given.starts)), noises)
        _, thoughts = lax.scan(turn, empty(batch, key.dtype), inputs)
        return read(query, *jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), thoughts))

    def empty(batch, dtype):
        zeros = jnp.zeros((batch, heads, size, head), dtype)
        return Working(zeros, zeros, jnp.zeros(zeros.shape[:3], bool))

    def apply(parts, params, given):
        arrays = split_qkv(parts.project(params, given.x, given.source), heads, heads)
        select = one_by_one if causal else among_all
        mixed = merge_heads(select(params, *arrays, given))
        return parts.output(params, mixed, given.x)

    def init_state(parts, params, batch_size, max_length, dtype):
        return empty(batch_size, dtype)

    def step(parts, params, x, state):
        x = x[:, None]
        query, key, value = split_qkv(parts.project(params, x, x), heads, heads)
        state, scores = renew(state, key[:, 0], value[:, 0], params["focus"])
        thoughts, scores = jax.tree.map(lambda a: a[:, None], (state, scores))
        mixed = merge_heads(read(query, thoughts, scores))
        return parts.output(params, mixed, x)[:, 0].astype(x.dtype), state

    return framed_parts(
        "causal consciousness_prior" if causal else "consciousness_prior",
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        init_state=init_state if causal else None,
        step=step if causal else None,
        takes="documents" if causal else "padding",
        causal=causal,
        cross=not causal,
    )


MECHANISM = Mechanism(
    name="consciousness_prior",
    title="The consciousness prior: attention through a bottleneck of few thoughts",
    arxiv="1709.08568",
    family="memory",
    equation="o_t = sum_{j in c_t} softmax_j(q_t.k_j + f.k_j) v_j, c_t = top_m of c_{t-1} and t",
    core=select_bottleneck,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="linear",
    equivariant=True,
    documents="causal",
    parameters=("focus",),
)
