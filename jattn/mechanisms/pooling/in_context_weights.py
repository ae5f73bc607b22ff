"""In-context weights of a voxel, BraInCoRL (Yu et al. 2025, arXiv 2505.15813).

    [e_i; y_i] -> tokens behind R registers,   blocks of attention with queries times ln(T), SwiGLU
    w = head(token 0),   prediction for another image e: w_e . e + w_0

Pairs of an image's embedding and a voxel's response, in any number and order, become the weights
of a linear model of that voxel.

Distinctive: ln of the number of tokens, registers included, sharpens attention as more come, so
contexts longer than in training do not wash it out. The input of the query projection is
multiplied, not its bias, as the authors' code does.

Limits: T = e is plain attention; without a query bias it is attention of scale ln(T) / sqrt(d).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

import jattn.attention as engine
from jattn.checks import check_count, check_flag
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import affine, affine_init, norm, norm_init
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.mechanism import Mechanism

SLOPE = 0.1


def residual_block(params: dict, x: Float[Array, "*b m"], eps: float) -> Float[Array, "*b n"]:
    """`Lin(lrelu(LN(Lin(lrelu(LN x))))) + bypass(x)`.

    Args:
        params: `norm`, `inner`, `inner_norm`, `outer`; `bypass` where sizes differ.
        x: any features.
        eps: of the norms.
    """
    h = affine(params["inner"], jax.nn.leaky_relu(norm(params["norm"], x, eps=eps), SLOPE))
    h = jax.nn.leaky_relu(norm(params["inner_norm"], h, eps=eps), SLOPE)
    past = affine(params["bypass"], x) if "bypass" in params else x
    return affine(params["outer"], h) + past


def log_length_block(
    params: dict,
    x: Float[Array, "b t m"],
    real: Bool[Array, "b t"] | None = None,
    *,
    heads: int,
    log_length: bool = True,
    eps: float = 1e-5,
) -> Float[Array, "b t m"]:
    """A pre-norm block of attention, its queries' input times ln(T), and a SwiGLU.

    Args:
        params: `norm`, `query`, `key`, `value`, `output`, `mlp_norm`, `gate`, `up`, `down`.
        x: tokens.
        real: False where x is padding; default none is. T is the number of others.
        heads: number of heads.
        log_length: whether queries are multiplied.
        eps: of the norms.
    """
    query, key, value = _projected(params, x, real, log_length, eps)
    x = x + affine(params["output"], attentive_pool(query, key, value, real, heads=heads))
    seen = norm(params["mlp_norm"], x, eps=eps)
    opened = jax.nn.silu(affine(params["gate"], seen)) * affine(params["up"], seen)
    return x + affine(params["down"], opened)


def _projected(params, x, real, log_length, eps):
    """Queries, keys and values of a block, before heads are split."""
    seen = norm(params["norm"], x, eps=eps)
    asked = seen
    if log_length:
        count = jnp.full(len(x), x.shape[1]) if real is None else real.sum(1)
        asked = seen * jnp.log(count.astype(x.dtype))[:, None, None]
    of = {"query": asked, "key": seen, "value": seen}
    return tuple(affine(params[name], z) for name, z in of.items())


def in_context_weights(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 1,
    log_length: bool = True,
    eps: float = 1e-5,
) -> Float[Array, "b 1 m"]:
    """Weights of a linear model, from pairs in context.

    Args:
        params: `early` and `head`, residual blocks; `registers` `[r, c]`; `blocks`, a list.
        x: pairs, each an image's embedding and, last, the response to it.
        real: False where x is padding; default none is.
        heads: number of heads.
        log_length: whether queries are multiplied by ln(T).
        eps: of the norms.

    Returns:
        Weights of the embedding and, last, a bias.

    Reference:
        arXiv 2505.15813.

    Example:
        >>> params = make(dim=4, width=8, hidden=16, depth=1).init(jax.random.key(0))
        >>> in_context_weights(params, jnp.ones((1, 6, 4))).shape
        (1, 1, 4)
    """
    tokens = _tokens(params, x, eps)
    if real is not None:
        front = ((0, 0), (tokens.shape[1] - x.shape[1], 0))
        real = jnp.pad(real, front, constant_values=True)
    for block in params["blocks"]:
        tokens = log_length_block(block, tokens, real, heads=heads, log_length=log_length, eps=eps)
    return residual_block(params["head"], tokens[:, :1], eps)


def _tokens(params, x, eps):
    """Registers, and a token for each pair."""
    registers = params["registers"].astype(x.dtype)
    registers = jnp.broadcast_to(registers, (len(x), *registers.shape))
    return jnp.concatenate([registers, residual_block(params["early"], x, eps)], axis=1)


def last_map(
    params: dict,
    x: Float[Array, "b n m"],
    *,
    heads: int = 1,
    log_length: bool = True,
    eps: float = 1e-5,
) -> Float[Array, "b h t t"]:
    """The attention map of the last block, registers first.

    Args:
        params, x, heads, log_length, eps: as in `in_context_weights`.

    Example:
        >>> params = make(dim=4, width=8, hidden=16, depth=1).init(jax.random.key(0))
        >>> last_map(params, jnp.ones((1, 6, 4))).shape
        (1, 1, 10, 10)
    """
    tokens, (*blocks, last) = _tokens(params, x, eps), params["blocks"]
    for block in blocks:
        tokens = log_length_block(block, tokens, heads=heads, log_length=log_length, eps=eps)
    maps = _projected(last, tokens, None, log_length, eps)
    split = [split_heads(z, heads) for z in maps]
    return engine.attend(*split, return_weights=True, implementation="reference")[1]


def linear_predictions(
    weights: Float[Array, "b m"], images: Float[Array, "b k e"]
) -> Float[Array, "b k"]:
    """`w_e . e + w_0` of images' embeddings, m = e + 1.

    Example:
        >>> linear_predictions(jnp.array([[2.0, 1.0]]), jnp.array([[[3.0]]])).tolist()
        [[7.0]]
    """
    return jnp.einsum("be,bke->bk", weights[:, :-1], images) + weights[:, -1:]


def _residual_init(key: jax.Array, inputs: int, outputs: int) -> dict:
    inner, outer, bypass = jax.random.split(key, 3)
    params = {
        "norm": norm_init(inputs),
        "inner": affine_init(inner, inputs, 2 * outputs),
        "inner_norm": norm_init(2 * outputs),
        "outer": affine_init(outer, 2 * outputs, outputs),
    }
    return params | ({"bypass": affine_init(bypass, inputs, outputs)} if inputs != outputs else {})


def make(
    *,
    dim: int,
    heads: int = 1,
    width: int = 32,
    depth: int = 2,
    hidden: int = 64,
    registers: int = 4,
    log_length: bool = True,
) -> Pool:
    """Makes the pool.

    Args:
        dim: size m of a pair: that of embeddings, and one for the response.
        heads: a divisor of the width; 10 in the paper.
        width: of tokens inside; 560 to 1200 in the paper.
        depth: number of blocks; 20 in the paper.
        hidden: width of the SwiGLUs; 2048 in the paper.
        registers: tokens before those of the pairs; the first becomes the weights.
        log_length: whether queries are multiplied by ln(T).

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pool = make(dim=8)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    check_count("dim", dim)
    check_count("width", width)
    check_count("heads", heads)
    if width % heads:
        raise ValueError(f"heads: expected a divisor of width={width}, got {heads}")
    for name, number in (("depth", depth), ("hidden", hidden), ("registers", registers)):
        check_count(name, number)
    check_flag("log_length", log_length)

    def block(key):
        keys = jax.random.split(key, 7)
        names = ("query", "key", "value", "output")
        return {
            **{of: affine_init(k, width, width) for of, k in zip(names, keys[:4], strict=True)},
            "norm": norm_init(width),
            "mlp_norm": norm_init(width),
            "gate": affine_init(keys[4], width, hidden),
            "up": affine_init(keys[5], width, hidden),
            "down": affine_init(keys[6], hidden, width),
        }

    def init(key):
        early, head, own, *keys = jax.random.split(key, 3 + depth)
        return {
            "early": _residual_init(early, dim, width),
            "registers": jax.random.normal(own, (registers, width)) * dim**-0.5,
            "blocks": [block(k) for k in keys],
            "head": _residual_init(head, width, dim),
        }

    def apply(params, x, real):
        return in_context_weights(params, x, real, heads=heads, log_length=log_length)

    return framed_pool("in_context_weights", dim=dim, init=init, apply=apply)


MECHANISM = Mechanism(
    name="in_context_weights",
    title="BraInCoRL: in-context weights of voxels",
    arxiv="2505.15813",
    family="pooling",
    equation="w = head(blocks([registers; early([e_i; y_i])])_0), queries times ln(T)",
    core=in_context_weights,
    make=make,
    cost="quadratic",
    kind="pool",
    equivariant=True,
    parameters=("early", "registers", "blocks", "head"),
)
