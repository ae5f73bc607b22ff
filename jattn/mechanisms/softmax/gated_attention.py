"""Gated attention (Qiu et al. 2025, arXiv 2505.06708): a gate in one of five places of the layer.

    G1   o_i = gate(x_i) * sum_j softmax_j( q_i . k_j / sqrt(d) ) v_j
    G2   v_j <- gate(x_j) * v_j
    G3   k_j <- gate(x_j) * k_j
    G4   q_i <- gate(x_i) * q_i
    G5   y_i = gate(x_i) * W_output o_i

gate(x) = sigmoid(x W): one for each element or each head, times or added. G3 and G4 come before the
norms of queries and keys, and before rotation.

Distinctive: a head that has nothing to say can close, and needs no attention sink to look at.

Limits: W = 0 halves softmax attention (G1, G2, G5); a gate that is wide open is softmax attention,
and so is mode "add" of an identity with W = 0. `jattn.mechanisms.combinators.gated` puts G1 and G5
on any other mixer.
"""

import jax.numpy as jnp

from jattn.checks import check_choice, check_flag
from jattn.mechanisms.combinators.gated import check_gate, gate, gate_init, gate_logits, gated
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.layers.heads import split_qkv
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.mechanisms.softmax.softmax_attention import softmax_attention

POSITIONS = ("G1", "G2", "G3", "G4", "G5")


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    window: int | None = None,
    qk_norm: bool = False,
    position: str = "G1",
    granularity: str = "element",
    shared: bool = False,
    activation: str = "sigmoid",
    mode: str = "multiply",
) -> Mixer:
    """Makes the mixer; its gate is the parameter `output_gate` (G1, G5) or `gate` (G2, G3, G4).

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).
        qk_norm: divide queries and keys of each head by their root mean square, times a learned
            weight of each channel (`query_norm`, `key_norm`); cancels a head's own gate of G3, G4.
        position: where the gate is, `"G1"` to `"G5"`.
        granularity: a gate for each `"element"` or each `"head"`.
        shared: all heads share their gates.
        activation: `"sigmoid"`, `"silu"`, `"identity"` or `"ns_sigmoid"`; see `gate`.
        mode: `"multiply"` or `"add"`.

    Raises:
        ValueError: a size that does not fit, or an unknown value.

    Example:
        >>> import jax
        >>> mixer = make(dim=32, heads=4, causal=True, granularity="head")
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["output_gate"].shape
        (32, 4)
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    check_choice("position", position, POSITIONS)
    check_flag("shared", shared)
    check_flag("qk_norm", qk_norm)
    check_gate(granularity, activation, mode)
    check_heads(dim, heads, kv_heads)
    groups = heads if kv_heads is None else kv_heads
    head_dim = dim // heads
    inside = position in ("G2", "G3", "G4")
    gated_heads = heads if position == "G4" else groups

    def init(key):
        own = {}
        if inside:
            own["gate"] = gate_init(key, dim, gated_heads, head_dim, granularity, shared)
        if qk_norm:
            own |= {"query_norm": jnp.ones(head_dim), "key_norm": jnp.ones(head_dim)}
        return own

    def prepare(params, maps, x, source):
        query, key, value = split_qkv(maps, heads, groups)

        def opened(y, tokens):
            logits = gate_logits(params["gate"], tokens, gated_heads, shared)
            return gate(y, logits, activation=activation, mode=mode)

        if position == "G2":
            value = opened(value, source)
        elif position == "G3":
            key = opened(key, source)
        elif position == "G4":
            query = opened(query, x)
        if qk_norm:
            query = rms_norm(query, params["query_norm"])
            key = rms_norm(key, params["key_norm"])
        return query, key, value

    def core(params, query, key, value, context):
        return softmax_attention(query, key, value, mask=context.mask)

    mixer = attention_mixer(
        "gated_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        kv_heads=kv_heads,
        init=init,
        prepare=prepare,
        rotary=rotary,
        window=window,
    )
    if inside:
        return mixer
    return gated(
        mixer,
        dim=dim,
        heads=heads,
        position=position,
        granularity=granularity,
        shared=shared,
        activation=activation,
        mode=mode,
    )


MECHANISM = Mechanism(
    name="gated_attention",
    title="Gated attention for large language models",
    arxiv="2505.06708",
    family="softmax",
    equation="o_i = sigmoid(x_i W) * sum_j softmax_j(q_i.k_j / sqrt(d)) v_j",
    core=gate,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
    parameters=("output_gate",),
)
