"""Channel attention of dual attention (1809.02983) and multi-scale attention (1906.02849).

    E = X^T X,   A = softmax_j(max_j' E_ij' - E_ij) = softmax_j(-E_ij),   Y^T = gamma A X^T

Channels attend to channels; there are no projections. The sign is the authors': channels that are
alike get little of each other.

Distinctive: its map is m x m, whatever the number of tokens, which mix through it alone.

Limits: the row's maximum cancels; the order of tokens changes nothing of A.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

import jattn.attention as engine
from jattn.checks import check_number
from jattn.mechanisms.frames.framed import framed
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer


def channel_self_attention(
    x: Float[Array, "b t m"], gamma: Float[Array, ""], *, heads: int = 1
) -> Float[Array, "b t m"]:
    """`gamma (softmax(-X^T X) X^T)^T`.

    Args:
        x: tokens, zeros where they are padding.
        gamma: scale of what comes out.
        heads: groups of channels that see each other; the papers have one.

    Reference:
        arXiv 1809.02983, 1906.02849.

    Example:
        >>> channel_self_attention(jnp.ones((1, 3, 2)), jnp.array(0.5))[0, 0].tolist()
        [0.5, 0.5]
    """
    channels = jnp.moveaxis(split_heads(x, heads), 1, 3).swapaxes(1, 2)  # [b, m / h, h, t]
    read = engine.attend(channels, channels, channels, scale=-1.0)
    return gamma.astype(x.dtype) * read.transpose(0, 3, 2, 1).reshape(x.shape)


def make(*, dim: int, heads: int, causal: bool = False, gamma: float = 1.0) -> Mixer:
    """Makes the mixer; the residual is the block's around it.

    Args:
        dim: model dimension m.
        heads: groups of channels, a divisor of m; 1 in the papers.
        causal: False; channels are compared over all tokens.
        gamma: the learned scale at first; 0 in the papers.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=4, heads=1)
        >>> mixer.apply(mixer.init(jax.random.key(0)), jnp.ones((1, 6, 4))).shape
        (1, 6, 4)
    """
    if causal is not False:
        raise ValueError("causal: channel_self_attention compares all tokens; pass causal=False")
    check_heads(dim, heads)
    check_number("gamma", gamma)

    return framed(
        "channel_self_attention",
        dim=dim,
        init=lambda key: {"gamma": jnp.asarray(float(gamma))},
        apply=lambda params, given: channel_self_attention(given.x, params["gamma"], heads=heads),
        takes="padding",
        causal=False,
    )


MECHANISM = Mechanism(
    name="channel_self_attention",
    title="Channel attention (dual attention, multi-scale self-guided attention)",
    arxiv="1906.02849",
    family="channel",
    equation="Y^T = gamma softmax(-X^T X) X^T",
    core=channel_self_attention,
    make=make,
    bidirectional=True,
    documents="never",
    cost="linear",
    equivariant=True,
    parameters=("gamma",),
    absent=("query", "key", "value", "output"),
)
