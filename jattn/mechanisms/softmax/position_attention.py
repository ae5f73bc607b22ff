"""Position attention of dual attention (1809.02983) and multi-scale attention (1906.02849).

    A = softmax_j(Q_i . K_j),   Y = gamma A V      with queries and keys of m / 8 channels

Every place of an image reads all others; scores are not divided by sqrt(d), and a learned scale
gamma, 0 at first in the papers, opens the layer, Y + X. Its twin over channels is
`channel_self_attention`.

Distinctive: one head with few channels to compare by, and all to read.

Limits: a query projection of zero gives gamma mean(V); gamma = 0 nothing; dY / dgamma = A V.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import jattn.attention as engine
from jattn.checks import check_count, check_number
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.layers.affine import affine, affine_init
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer

PARTS = ("query", "key", "value")


def position_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    value: Float[Array, "b s h e"],
    gamma: Float[Array, ""],
    *,
    mask=None,
) -> Float[Array, "b t h e"]:
    """`gamma softmax(Q K^T) V`, without a scale.

    Args:
        query, key, value: heads; the papers have one.
        gamma: scale of what comes out.
        mask: for `attend`.

    Reference:
        arXiv 1809.02983, 1906.02849.

    Example:
        >>> x = jnp.ones((1, 3, 1, 2))
        >>> position_attention(x, x, x, jnp.array(0.5))[0, 0, 0].tolist()
        [0.5, 0.5]
    """
    return gamma.astype(value.dtype) * engine.attend(query, key, value, mask=mask, scale=1.0)


def make(
    *, dim: int, heads: int, causal: bool = False, reduction: int = 8, gamma: float = 1.0
) -> Mixer:
    """Makes the mixer; the residual is the block's around it.

    Args:
        dim: model dimension m.
        heads: a divisor of m; 1 in the papers.
        causal: hide later tokens.
        reduction: queries and keys have m / reduction channels, one a head at least.
        gamma: the learned scale at first; 0 in the papers, where nothing else has a gradient then.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=16, heads=1)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["query"]["weight"].shape
        (16, 2)
    """
    check_heads(dim, heads)
    check_number("gamma", gamma)
    check_count("reduction", reduction)
    few = heads * max(dim // reduction // heads, 1)

    def init(key):
        keys = jax.random.split(key, 3)
        sizes = (few, few, dim)
        made = zip(PARTS, keys, sizes, strict=True)
        params = {of: affine_init(k, dim, size) for of, k, size in made}
        return params | {"gamma": jnp.asarray(float(gamma))}

    def project(params, x, source):
        of = {"query": x, "key": source, "value": source}
        return {name: affine(params[name], tokens) for name, tokens in of.items()}

    def prepare(params, maps, x, source):
        query, key, value = (split_heads(maps[of], heads) for of in PARTS)
        return query, key, value

    def core(params, query, key, value, context):
        return position_attention(query, key, value, params["gamma"], mask=context.mask)

    return attention_mixer(
        "position_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        init_all=init,
        project=project,
        prepare=prepare,
        output=lambda params, merged, x=None: merged,
    )


MECHANISM = Mechanism(
    name="position_attention",
    title="Position attention (dual attention, multi-scale self-guided attention)",
    arxiv="1906.02849",
    family="softmax",
    equation="y = gamma softmax(Q K^T) V, d = m / 8",
    core=position_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
    parameters=("gamma",),
    absent=("output",),
)
