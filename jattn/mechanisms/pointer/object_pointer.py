"""Object-level attention, OAT (Fang et al. 2024, arXiv 2407.13335): heads that point at objects.

    l_tj = sum_h r_h (W_h d_t + b_h) . (V_h e_j + c_h) / sqrt(d_k) + a,   p_t = softmax_j(l_tj)

A decoder over the objects seen so far points at the next one. With `stop` an appended slot, whose
score in every head is 0, ends the path. Objects come with codes of their places whose similarity
falls with distance, `gaussian_similarity_table`.

Distinctive: scaled products, several heads and a learned mixture of their logits, where
`pointer_network` has one additive score.

Limits: queries of zero point everywhere alike, and as much at stopping.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count, check_flag, check_number
from jattn.mechanisms.frames.kinds import framed_pointer
from jattn.mechanisms.kinds import Pointer
from jattn.mechanisms.layers.affine import affine, affine_init
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.mechanism import Mechanism


def head_logits(
    params: dict,
    query: Float[Array, "b t m"],
    tokens: Float[Array, "b s m"],
    *,
    heads: int = 1,
    stop: bool = False,
) -> Float[Array, "b t n h"]:
    """`(W d + b) . (V e + c) / sqrt(d_k)` of each head, and behind the tokens a slot of 0.

    Args:
        params: affine maps `query` and `key` from m to h d_k.
        query: the decoder's states.
        tokens: what may be pointed at.
        heads: h.
        stop: whether there is a slot.

    Example:
        >>> params = make(dim=4, heads=2).init(jax.random.key(0))
        >>> x = jnp.ones((1, 3, 4))
        >>> head_logits(params, x[:, :2], x, heads=2, stop=True).shape
        (1, 2, 4, 2)
    """
    asked = split_heads(affine(params["query"], query), heads)
    offered = split_heads(affine(params["key"], tokens), heads)
    logits = jnp.einsum("bthd,bshd->btsh", asked, offered) * asked.shape[-1] ** -0.5
    return jnp.pad(logits, [(0, 0), (0, 0), (0, int(stop)), (0, 0)])


def object_pointer(
    params: dict,
    query: Float[Array, "b t m"],
    tokens: Float[Array, "b s m"],
    *,
    heads: int = 1,
    stop: bool = False,
) -> Float[Array, "b t n"]:
    """Logits of pointing at each object, a mixture of heads.

    Args:
        params: those of `head_logits`, and `readout` from h numbers to one.
        query: the decoder's states.
        tokens: what may be pointed at.
        heads: h.
        stop: whether a slot stands behind the tokens.

    Returns:
        Logits, n = s, or s + 1 with `stop`.

    Reference:
        arXiv 2407.13335.

    Example:
        >>> params = make(dim=4, heads=2).init(jax.random.key(0))
        >>> x = jnp.ones((1, 3, 4))
        >>> object_pointer(params, x[:, :2], x, heads=2).shape
        (1, 2, 3)
    """
    logits = head_logits(params, query, tokens, heads=heads, stop=stop)
    return affine(params["readout"], logits)[..., 0]


def gaussian_similarity_table(rows: int, sigma: float = 2.0) -> Float[Array, "n n"]:
    """Unit codes of rows 0 to n - 1 whose products are `exp(-(i - j)^2 / (2 sigma^2))`.

    The paper trains a table to have such cosines; a factor of the matrix of them has them exactly.

    Args:
        rows: n; codes are as long.
        sigma: distance at which similarity has fallen to 0.61.

    Returns:
        A code a row, from the eigenvectors of the matrix, the largest first: cut to fewer columns
        it is the best approximation.

    Reference:
        arXiv 2407.13335.

    Example:
        >>> codes = gaussian_similarity_table(4)
        >>> [round(float(product), 3) for product in (codes @ codes.T)[0]]
        [1.0, 0.882, 0.607, 0.325]
    """
    check_count("rows", rows)
    check_number("sigma", sigma, above=0)
    apart = jnp.arange(rows)[:, None] - jnp.arange(rows)
    values, vectors = jnp.linalg.eigh(jnp.exp(-(apart**2) / (2 * sigma**2)))
    return (vectors * jnp.sqrt(jnp.maximum(values, 0)))[:, ::-1]


def make(*, dim: int, heads: int = 2, head_dim: int | None = None, stop: bool = False) -> Pointer:
    """Makes the pointer.

    Args:
        dim: dimension m of queries and tokens.
        heads: h; 2 in the paper.
        head_dim: d_k; default m; 512 in the paper.
        stop: puts a slot of score 0 behind the tokens, for the end of a path.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pointer = make(dim=8, stop=True)
        >>> params = pointer.init(jax.random.key(0))
        >>> pointer.apply(params, jnp.ones((1, 2, 8)), jnp.ones((1, 5, 8))).shape
        (1, 2, 6)
    """
    head_dim = dim if head_dim is None else head_dim
    for name, number in (("dim", dim), ("heads", heads), ("head_dim", head_dim)):
        check_count(name, number)
    check_flag("stop", stop)

    def init(key):
        query, own, readout = jax.random.split(key, 3)
        return {
            "query": affine_init(query, dim, heads * head_dim),
            "key": affine_init(own, dim, heads * head_dim),
            "readout": affine_init(readout, heads, 1),
        }

    def apply(params, query, tokens):
        return object_pointer(params, query, tokens, heads=heads, stop=stop)

    return framed_pointer("object_pointer", dim=dim, init=init, apply=apply, behind=stop)


MECHANISM = Mechanism(
    name="object_pointer",
    title="OAT: object-level attention transformer",
    arxiv="2407.13335",
    family="pointer",
    equation="l_tj = sum_h r_h (W_h d_t + b_h) . (V_h e_j + c_h) / sqrt(d_k) + a",
    core=object_pointer,
    make=make,
    cost="linear",
    kind="pointer",
    equivariant=True,
    parameters=("query", "key", "readout"),
)
