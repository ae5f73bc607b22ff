"""Task-conditioned codebook bottleneck (Eftekhar et al. 2023, arXiv 2311.04193).

    p = softmax(x W_score),   z = p C,   y = z W_up + b        K = 256 codes of 10 numbers

A representation passes through a convex combination of a few learned codes, which what the task
does not need does not survive. It is attention with the codes as values, and keys that are learned
and not made of them.

Distinctive: soft all the way, without a nearest code or a straight-through gradient.

Limits: y depends on x through as many numbers as a code has, the rank of its derivative at most;
W_score = 0 gives the mean code. One linear map scores here; the paper leaves its depth open.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import jattn.attention as engine
from jattn.checks import check_count
from jattn.mechanisms.frames.framed import framed
from jattn.mechanisms.layers.affine import affine, affine_init
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer


def combined_codes(
    x: Float[Array, "b t m"], score: Float[Array, "m k"], codebook: Float[Array, "k d"]
) -> Float[Array, "b t d"]:
    """`softmax(x score) codebook`, inside the convex hull of the codes.

    Args:
        x: representations.
        score: a column a code.
        codebook: the codes.

    Example:
        >>> codes = jnp.array([[0.0], [2.0]])
        >>> combined_codes(jnp.ones((1, 1, 3)), jnp.zeros((3, 2)), codes).tolist()
        [[[1.0]]]
    """
    key, value = (
        jnp.broadcast_to(array.astype(x.dtype)[:, None], (len(x), len(array), 1, array.shape[1]))
        for array in (score.T, codebook)
    )
    return engine.attend(x[:, :, None], key, value, scale=1.0)[:, :, 0]


def codebook_bottleneck(params: dict, x: Float[Array, "b t m"]) -> Float[Array, "b t m"]:
    """`softmax(x W_score) C W_up + b`, token by token.

    Args:
        params: `score` `[m, k]`, `codebook` `[k, d]`, and `up`, affine from d to m.
        x: representations.

    Reference:
        arXiv 2311.04193.

    Example:
        >>> params = codebook_bottleneck_init(jax.random.key(0), 4, codes=8, size=2)
        >>> codebook_bottleneck(params, jnp.ones((1, 3, 4))).shape
        (1, 3, 4)
    """
    return affine(params["up"], combined_codes(x, params["score"], params["codebook"]))


def codebook_bottleneck_init(key: jax.Array, dim: int, *, codes: int, size: int) -> dict:
    """Parameters for so many codes of a size."""
    score, book, up = jax.random.split(key, 3)
    return {
        "score": linear_init(score, dim, codes),
        "codebook": jax.random.normal(book, (codes, size)),
        "up": affine_init(up, size, dim),
    }


def make(*, dim: int, heads: int, causal: bool = True, codes: int = 256, size: int = 10) -> Mixer:
    """Makes the mixer, which mixes no tokens and so is causal.

    Args:
        dim: model dimension m.
        heads: there are none; a divisor of m, as everywhere.
        causal: True; it is.
        codes: how many there are, K.
        size: of a code.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=1, codes=16, size=3)
        >>> mixer.apply(mixer.init(jax.random.key(0)), jnp.ones((1, 6, 8))).shape
        (1, 6, 8)
    """
    if causal is not True:
        raise ValueError("causal: codebook_bottleneck mixes no tokens; pass causal=True")
    check_heads(dim, heads)
    check_count("codes", codes)
    check_count("size", size)

    return framed(
        "codebook_bottleneck",
        dim=dim,
        init=lambda key: codebook_bottleneck_init(key, dim, codes=codes, size=size),
        apply=lambda params, given: codebook_bottleneck(params, given.x),
        init_state=lambda params, batch_size, max_length, dtype: (),
        prefill=lambda params, x, state, length: (codebook_bottleneck(params, x), state),
        takes="documents",
        causal=True,
    )


MECHANISM = Mechanism(
    name="codebook_bottleneck",
    title="Selective visual representations: a codebook bottleneck",
    arxiv="2311.04193",
    family="channel",
    equation="y = softmax(x W_score) C W_up + b",
    core=codebook_bottleneck,
    make=make,
    causal=True,
    bidirectional=False,
    streaming=True,
    cost="linear",
    parameters=("score", "codebook", "up"),
    absent=("query", "key", "value", "output"),
)
