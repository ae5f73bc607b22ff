"""Attention with fewer matrices (arXiv 2410.13732): queries and keys, values and output, merged.

    o_i = sum_j softmax_j( x_i W x_j / sqrt(d) ) v_j

    qk = "separate"    W = W_query W_key^T                  2 m^2 parameters, any heads
         "shared"      W = W_query W_query^T, of each head    m^2
         "collapsed"   W itself, one head                     m^2
         "cholesky"    W = L L^T, L lower triangular, one head  m (m + 1) / 2
    vo = "separate"    v_j = x_j W_value, and an output projection
         "none"        v_j = x_j, no output projection, one head

Distinctive: shared and cholesky make the similarity of tokens symmetric, a token's with itself at
least 0. Without value and output a token moves inside the convex hull of the others. The paper
leaves the MLP out as well (`mlp_ratio=0` of `jattn.nn.TransformerConfig`): then, and without
residuals and norms, the value and output matrices of a stack are one matrix.

Limits: separate and separate is softmax attention; collapsed with W = W_query W_key^T is it, too.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_choice
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.layers.heads import project_output, qkvo_init, split_heads
from jattn.mechanisms.layers.linear_maps import linear
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.mechanisms.softmax.softmax_attention import softmax_attention

QUERY_KEY = ("separate", "shared", "collapsed", "cholesky")
VALUE_OUTPUT = ("separate", "none")


def lower_triangular(packed: Float[Array, " n"], size: int) -> Float[Array, "m m"]:
    """The matrix L whose rows, up to the diagonal, are `packed`.

    Args:
        packed: its `size (size + 1) / 2` numbers.
        size: m.

    Example:
        >>> lower_triangular(jnp.array([1.0, 2.0, 3.0]), 2).tolist()
        [[1.0, 0.0], [2.0, 3.0]]
    """
    return jnp.zeros((size, size), packed.dtype).at[jnp.tril_indices(size)].set(packed)


def query_key(
    params: dict[str, Array],
    x: Float[Array, "b t m"],
    source: Float[Array, "b s m"],
    *,
    heads: int,
    qk: str = "shared",
) -> tuple[Float[Array, "b t h d"], Float[Array, "b s h d"]]:
    """Queries and keys whose products are x_i W x_j.

    Args:
        params: `query` `[m, m]` and, if separate, `key`; if cholesky `query` is packed, see
            `lower_triangular`.
        x: tokens that ask.
        source: tokens that are asked.
        heads: h; 1 if collapsed or cholesky.
        qk: as in the module's docstring.

    Raises:
        ValueError: an unknown value of `qk`.

    Reference:
        arXiv 2410.13732.

    Example:
        >>> x = jnp.ones((1, 5, 8))
        >>> query, key = query_key({"query": jnp.eye(8)}, x, x, heads=2)
        >>> query.shape, bool((query == key).all())
        ((1, 5, 2, 4), True)
    """
    check_choice("qk", qk, QUERY_KEY)
    into = params["query"]
    if qk == "cholesky":
        into = lower_triangular(into, x.shape[-1])
    query = split_heads(linear(x, into), heads)
    if qk == "collapsed":
        key = source
    else:
        key = linear(source, params["key"] if qk == "separate" else into)
    return query, split_heads(key, heads)


def make(
    *, dim: int, heads: int, causal: bool = False, qk: str = "shared", vo: str = "separate"
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m; 1 for what is defined for one head only.
        causal: hide later tokens.
        qk: `"separate"`, `"shared"`, `"collapsed"` or `"cholesky"`.
        vo: `"separate"` or `"none"`.

    Raises:
        ValueError: an unknown value, or a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=32, heads=1, qk="cholesky", vo="none")
        >>> params = mixer.init(jax.random.key(0))
        >>> {name: array.shape for name, array in params.items()}
        {'query': (528,)}
    """
    check_choice("qk", qk, QUERY_KEY)
    check_choice("vo", vo, VALUE_OUTPUT)
    check_heads(dim, heads)
    for name, value in (("qk", qk), ("vo", vo)):
        if heads > 1 and value in ("collapsed", "cholesky", "none"):
            raise ValueError(f"heads: expected 1 with {name}={value!r}, got {heads}")
    kept = ["query"]
    kept += ["key"] if qk == "separate" else []
    kept += ["value", "output"] if vo == "separate" else []

    def init(key):
        params = qkvo_init(key, dim, heads)
        if qk == "cholesky":
            params["query"] = params["query"][jnp.tril_indices(dim)]
        return {name: params[name] for name in kept}

    def project(params, x, source):
        maps = {} if qk == "cholesky" else {"query": linear(x, params["query"])}
        if qk == "shared":
            maps["query/source"] = linear(source, params["query"])
        if qk == "separate":
            maps["key"] = linear(source, params["key"])
        if vo == "separate":
            maps["value"] = linear(source, params["value"])
        return maps

    def prepare(params, maps, x, source):
        if qk == "cholesky":
            query, key = query_key(params, x, source, heads=heads, qk=qk)
        else:
            keys = {"shared": "query/source", "separate": "key"}
            query = split_heads(maps["query"], heads)
            key = split_heads(maps[keys[qk]] if qk in keys else source, heads)
        return query, key, split_heads(maps.get("value", source), heads)

    def output(params, mixed, x):
        return project_output(params, mixed) if vo == "separate" else mixed

    def core(params, query, key, value, context):
        return softmax_attention(query, key, value, mask=context.mask)

    return attention_mixer(
        "minimal_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        init_all=init,
        project=project,
        prepare=prepare,
        output=output,
    )


MECHANISM = Mechanism(
    name="minimal_attention",
    title="Reducing the transformer architecture to a minimum",
    arxiv="2410.13732",
    family="softmax",
    equation="o_i = sum_j softmax_j(q_i.q_j / sqrt(d)) v_j",
    core=query_key,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
    absent=("key",),
)
