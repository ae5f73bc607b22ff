"""Context encoding, EncNet (Zhang et al. 2018, arXiv 1803.08904).

    a_tk = softmax_k(s_k |x_t - c_k|^2),   e_k = sum_t a_tk (x_t - c_k)
    y = x * sigmoid(W mean_k relu(BN(e_k)) + b)

A codebook of K words; the residuals of all tokens, each assigned softly to words, say what there
is in the scene, and that decides on channels.

Distinctive: residuals to learned words instead of a mean, which is what one word at 0 gives.

Limits: equal words and smoothing divide every token by K.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.affine import affine, affine_init, norm_init
from jattn.mechanisms.layers.batch_norm import running_norm, statistics_init
from jattn.mechanisms.mechanism import Mechanism


def assignments(
    x: Float[Array, "*batch c"], codewords: Float[Array, "k c"], smoothing: Float[Array, " k"]
) -> Float[Array, "*batch k"]:
    """`softmax_k(s_k |x - c_k|^2)`, how much each token belongs to each word.

    Example:
        >>> assignments(jnp.ones(2), jnp.zeros((4, 2)), jnp.ones(4)).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    words = codewords.astype(x.dtype)
    inner = x @ words.T
    distance = (x**2).sum(-1, keepdims=True) - 2 * inner + (words**2).sum(-1)
    return jax.nn.softmax(smoothing.astype(x.dtype) * distance, axis=-1)


def context_encoding(
    params: dict,
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
    *,
    norm=running_norm,
) -> Float[Array, "b *one c"]:
    """A factor for each channel, from residuals to a codebook.

    Args:
        params: `codewords` `[k, c]`, `smoothing` `[k]`; `norm` and `statistics` `[k]` of batch
            norm; `output` from c to c, with a bias.
        x: tokens `[b, t, c]` or images `[b, y, x, c]`.
        real: False where x is padding; default none is.
        norm: of residuals, `(params, [b, c, k]) -> the same`.

    Returns:
        Factors in (0, 1), with axes of space 1 long.

    Reference:
        arXiv 1803.08904.

    Example:
        >>> params = make(dim=8).init(jax.random.key(0))
        >>> context_encoding(params, jnp.ones((2, 6, 8))).shape
        (2, 1, 8)
    """
    tokens = x.reshape(len(x), -1, x.shape[-1])
    weight = assignments(tokens, params["codewords"], params["smoothing"])
    if real is not None:
        weight = jnp.where(real.reshape(len(x), -1, 1), weight, 0)
    words = params["codewords"].astype(x.dtype)
    encoded = jnp.einsum("btk,btc->bkc", weight, tokens) - weight.sum(1)[..., None] * words
    normed = norm(params, encoded.swapaxes(1, 2))
    z = affine(params["output"], jax.nn.relu(normed).mean(-1))
    return jax.nn.sigmoid(z).reshape(len(x), *[1] * (x.ndim - 2), -1)


def make(*, dim: int, words: int = 4) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        words: codewords K.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> gate = make(dim=8, words=3)
        >>> gate.apply(gate.init(jax.random.key(0)), jnp.ones((2, 6, 8))).shape
        (2, 6, 8)
    """
    check_count("dim", dim)
    check_count("words", words)

    def init(key):
        book, smoothing, output = jax.random.split(key, 3)
        bound = (words * dim) ** -0.5
        return {
            "codewords": jax.random.uniform(book, (words, dim), minval=-bound, maxval=bound),
            "smoothing": jax.random.uniform(smoothing, (words,), minval=-1, maxval=0),
            "norm": norm_init(words),
            "statistics": statistics_init(words),
            "output": affine_init(output, dim, dim),
        }

    return framed_gate(
        "context_encoding", dim=dim, init=init, factors=context_encoding, normed=True
    )


MECHANISM = Mechanism(
    name="context_encoding",
    title="EncNet: context encoding",
    arxiv="1803.08904",
    family="channel",
    equation="y = x * sigmoid(W mean_k relu(BN(sum_t a_tk (x_t - c_k))) + b)",
    core=context_encoding,
    make=make,
    cost="linear",
    kind="gate",
    equivariant=True,
    parameters=("codewords", "smoothing", "norm", "statistics", "output"),
    statistics=("statistics",),
)
