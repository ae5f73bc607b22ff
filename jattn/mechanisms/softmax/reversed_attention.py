"""Reversed attention of visual dependency transformers (arXiv 2304.03282): children tell parents.

    A_ij = softmax_j( q_i . k_j / sqrt(d) )            child i chooses its parents j
    o_j  = sum_i A_ij P_i M_i v_i                      parent j gathers what it is told
    P_i  = softmax over heads of (x_i W_select / 0.1)  which head a child speaks through
    M_i  = product over layers so far of sigmoid( W_2 gelu(W_1 x_i) )   whether it still speaks

Distinctive: weights are normalised over receivers and summed over senders, so a message is handed
out in whole, and heads with their gates grow a tree of parts: `dependency_tree` reads it and prunes
by it. M is carried from layer to layer, `reversed_layer`, as `jattn.nn.VisionTransformer` does with
`carry_messages`; the mixer alone starts it at 1.

Limits: P = M = 1 and weights that are symmetric are softmax attention. No causal form is given.

The authors published no code: the message's inner size m / 2 and the lack of biases in the gates
follow a third party's.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention import attend, attend_columns
from jattn.checks import check_number, check_shape
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Parts

TEMPERATURE = 0.1
USUAL = Parts(project_qkv, None, project_output)


def reversed_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b t g e"],
    sender_weights: Float[Array, "b t #h"] | None = None,
    *,
    mask=None,
) -> Float[Array, "b s h e"]:
    """Gathers at each key from the queries: row softmax, column sums.

    Args:
        query: of senders, `[b, t, h, d]`.
        key: of receivers, `[b, s, g, d]`, g a divisor of h.
        value: what senders send, `[b, t, g, e]`.
        sender_weights: P M, `[b, t, h]` or `[b, t, 1]`; default 1.
        mask: anything `jattn.attend` takes; True where a sender may send to a receiver.

    Returns:
        `[b, s, h, e]`, in query's dtype. Two passes, without an array `[t, s]` in long sequences.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2304.03282.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 2, 4))
        >>> received = reversed_attention(x, x, x)
        >>> bool(jnp.allclose(received.sum(1), x.sum(1), atol=1e-5))  # nothing is lost
        True
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("value", value, "b t g e", sizes)
    if sender_weights is not None:
        check_shape("sender_weights", sender_weights, "b t one_or_h", sizes)
        if sizes["one_or_h"] not in (1, sizes["h"]):
            heads = f"1 or {sizes['h']}"
            raise ValueError(f"sender_weights: expected {heads} heads, got {sizes['one_or_h']}")
        shared = sizes["h"] // sizes["g"] if sizes["one_or_h"] > 1 else 1
        weights = sender_weights[..., None].astype(value.dtype)
        value = jnp.repeat(value, shared, axis=2) * weights
    _, lse = attend(query, key, key[..., :1], mask=mask, return_lse=True)
    return attend_columns(query, key, value, lse, mask=mask)


def head_selector(
    x: Float[Array, "b t m"], select: Float[Array, "m h"], *, temperature: float = TEMPERATURE
) -> Float[Array, "b t h"]:
    """P, the share of each head in what a token sends: softmax over heads of x W / temperature."""
    logits = linear(x, select).astype(jnp.promote_types(x.dtype, jnp.float32))
    return jax.nn.softmax(logits / temperature, axis=-1)


def message_gate(
    x: Float[Array, "b t m"], up: Float[Array, "m n"], down: Float[Array, "n 1"]
) -> Float[Array, "b t"]:
    """One layer's factor of M, sigmoid(gelu(x up) down), in (0, 1)."""
    hidden = jax.nn.gelu(linear(x, up), approximate=False)
    logits = linear(hidden, down)[..., 0]
    return jax.nn.sigmoid(logits.astype(jnp.promote_types(x.dtype, jnp.float32)))


def senders(
    params: dict[str, Array],
    x: Float[Array, "b t m"],
    message: Float[Array, "b t"] | None = None,
    *,
    temperature: float = TEMPERATURE,
) -> tuple[Float[Array, "b t h"], Float[Array, "b t"]]:
    """P and M of a layer.

    Args:
        params: of the mixer that `make` makes.
        x: tokens.
        message: M of the layers before, `[b, t]`; default 1.
        temperature: of the head selector.

    Returns:
        P `[b, t, h]`, and M `[b, t]` with this layer in it.
    """
    gate = message_gate(x, params["message_up"], params["message_down"])
    message = gate if message is None else message * gate
    return head_selector(x, params["select"], temperature=temperature), message


def reversed_layer(
    params: dict[str, Array],
    x: Float[Array, "b t m"],
    message: Float[Array, "b t"] | None = None,
    *,
    heads: int,
    temperature: float = TEMPERATURE,
    mask=None,
) -> tuple[Float[Array, "b t m"], Float[Array, "b t"]]:
    """One layer and the message gates behind it.

    Args:
        params: of the mixer that `make` makes.
        x: tokens.
        message: M of the layers before, `[b, t]`; default 1. Where it is 0 a token sends nothing.
        heads: h.
        temperature: of the head selector.
        mask: anything `jattn.attend` takes.

    Returns:
        What the layer gives `[b, t, m]`, and M with this layer in it.

    Reference:
        arXiv 2304.03282.
    """
    return _layer(USUAL, params, x, message, heads, temperature, mask)


def _layer(parts, params, x, message, heads, temperature, mask):
    share, message = senders(params, x, message, temperature=temperature)
    query, key, value = split_qkv(parts.project(params, x, x), heads, heads)
    out = reversed_attention(query, key, value, share * message[..., None], mask=mask)
    return parts.output(params, merge_heads(out), x), message


def make(*, dim: int, heads: int, causal: bool = False, temperature: float = TEMPERATURE) -> Mixer:
    """Makes the mixer; its gates are `select` `[m, h]`, `message_up` and `message_down`.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: False; there is no causal form.
        temperature: of the head selector, > 0.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["select"].shape, jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        ((32, 4), (1, 6, 32))
    """
    if causal:
        raise ValueError("causal: reversed_attention has no causal form; pass causal=False")
    check_number("temperature", temperature, above=0)
    check_heads(dim, heads)
    inner = max(dim // 2, 1)

    def init(key):
        shared, select, up, down = jax.random.split(key, 4)
        return qkvo_init(shared, dim, heads) | {
            "select": linear_init(select, dim, heads),
            "message_up": linear_init(up, dim, inner),
            "message_down": linear_init(down, inner, 1),
        }

    def apply(parts, params, given):
        # Keys that are hidden receive nothing; what is no token must not send either.
        message = None if given.real is None else given.real.astype(jnp.float32)
        y, _ = _layer(parts, params, given.x, message, heads, temperature, given.mask)
        return y

    return framed_parts(
        "reversed_attention",
        USUAL,
        dim=dim,
        init=init,
        apply=apply,
        takes="any",
        causal=False,
    )


MECHANISM = Mechanism(
    name="reversed_attention",
    title="Visual dependency transformers: reversed attention",
    arxiv="2304.03282",
    family="softmax",
    equation="o_j = sum_i softmax_j(q_i.k_j / sqrt(d)) P_i M_i v_i",
    core=reversed_attention,
    make=make,
    causal=False,
    bidirectional=True,
    cross=False,
    streaming=False,
    cost="quadratic",
    equivariant=True,
    parameters=("select", "message_up", "message_down"),
)
