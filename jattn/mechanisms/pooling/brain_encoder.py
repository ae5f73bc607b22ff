"""Transformer brain encoders (Adeli et al. 2025, arXiv 2505.17329): one query a brain area.

    t = attend(LN(0) + Q, F + P, F),   t <- t + MLP(LN(t)),   y = LN(t)

Each area's learned query asks by content and place, F and P, and reads content; areas do not see
each other. A linear map then gives every vertex what its own area's token says.

Distinctive: where an area looks depends on the image; the factorised model, a map of logits for
each area that knows no image, is the same with the keys left out.

Limits: key weights of zero are a uniform map. LN(0) is the norm's shift, whatever its scale.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

import jattn.attention as engine
from jattn.attention.positions import sinusoids
from jattn.checks import check_count
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import affine, affine_init, mlp, mlp_init, norm, norm_init
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.layers.size_checks import check_grid, check_heads
from jattn.mechanisms.layers.weighted_sums import softmax_sum
from jattn.mechanisms.mechanism import Mechanism


def brain_encoder(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 1,
    positions: Float[Array, "*b n m"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "b k m"]:
    """A token for each area.

    Args:
        params: `queries` `[k, m]`; `query`, `key`, `value` and `output`; `query_shift` `[m]`, the
            shift of the norm of targets, which begin at zero; `mlp_norm`, `mlp` and `norm`.
        x: features F of an image.
        real: False where x is padding; default none is.
        heads: number of heads.
        positions: P, added to keys; default none.
        eps: of the norms.

    Reference:
        arXiv 2505.17329.

    Example:
        >>> params = make(dim=4, areas=3).init(jax.random.key(0))
        >>> brain_encoder(params, jnp.ones((1, 6, 4))).shape
        (1, 3, 4)
    """
    query, key = _asked(params, x, positions)
    read = attentive_pool(query, key, affine(params["value"], x), real, heads=heads)
    t = affine(params["output"], read)
    t = t + mlp(params["mlp"], norm(params["mlp_norm"], t, eps=eps), jax.nn.relu)
    return norm(params["norm"], t, eps=eps)


def _asked(params, x, positions):
    """Queries of areas and keys of places, before heads are split."""
    queries = (params["query_shift"] + params["queries"]).astype(x.dtype)[None]
    seen = x if positions is None else x + positions.astype(x.dtype)
    return affine(params["query"], queries), affine(params["key"], seen)


def routing(
    params: dict,
    x: Float[Array, "b n m"],
    *,
    heads: int = 1,
    positions: Float[Array, "*b n m"] | None = None,
) -> Float[Array, "b h k n"]:
    """Where each area looks: rows over places, summing to one.

    Args:
        params, x, heads, positions: as in `brain_encoder`.

    Example:
        >>> params = make(dim=4, areas=3).init(jax.random.key(0))
        >>> routing(params, jnp.ones((1, 6, 4))).shape
        (1, 1, 3, 6)
    """
    query, key = _asked(params, x, positions)
    query = jnp.broadcast_to(query, (len(x), *query.shape[1:]))
    query, key = split_heads(query, heads), split_heads(key, heads)
    weights = engine.attend(query, key, key, return_weights=True, implementation="reference")[1]
    return weights


def vertex_predictions(
    tokens: Float[Array, "b k m"], weight: Float[Array, "m v"], bias: Float[Array, " v"]
) -> Float[Array, "b v k"]:
    """What every area's token would say of every vertex; see `of_own_area`.

    Example:
        >>> vertex_predictions(jnp.ones((1, 3, 2)), jnp.ones((2, 5)), jnp.zeros(5)).shape
        (1, 5, 3)
    """
    return affine({"weight": weight, "bias": bias}, tokens).swapaxes(1, 2)


def of_own_area(
    predictions: Float[Array, "b v k"], membership: Bool[Array, "v k"]
) -> Float[Array, "b v"]:
    """Each vertex's prediction by the token of its own area.

    Args:
        predictions: of `vertex_predictions`.
        membership: True where a vertex lies in an area, one for each; a vertex in none gets 0.

    Example:
        >>> of_own_area(jnp.array([[[1.0, 2.0]]]), jnp.array([[False, True]])).tolist()
        [[2.0]]
    """
    return jnp.where(membership, predictions, 0).sum(-1)


def spatial_map_readout(
    x: Float[Array, "b n m"], logits: Float[Array, "k n"], real: Bool[Array, "b n"] | None = None
) -> Float[Array, "b k m"]:
    """The factorised model: each area reads by a map that knows no image.

    Args:
        x: features of an image.
        logits: of each area's map.
        real: False where x is padding; default none is.

    Example:
        >>> spatial_map_readout(jnp.array([[[1.0], [3.0]]]), jnp.zeros((1, 2))).tolist()
        [[[2.0]]]
    """
    return softmax_sum(jnp.broadcast_to(logits.T, (len(x), *logits.T.shape)), x, real)


def grid_positions(grid: tuple[int, int], dim: int) -> Float[Array, "n m"]:
    """Waves of rows in the first half of channels, and of columns in the second, row by row.

    Args:
        grid: rows and columns.
        dim: m, a multiple of 4.

    Example:
        >>> grid_positions((2, 3), 4).shape
        (6, 4)
    """
    rows, columns = (sinusoids(jnp.arange(n), dim // 2) for n in grid)
    shape = (*grid, dim // 2)
    both = jnp.broadcast_to(rows[:, None], shape), jnp.broadcast_to(columns[None], shape)
    return jnp.concatenate(both, axis=-1).reshape(-1, dim)


def make(
    *,
    dim: int,
    heads: int = 1,
    areas: int = 16,
    hidden: int | None = None,
    grid: tuple[int, int] | None = None,
) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        heads: a divisor of m; 16 in the paper.
        areas: of the brain, and so tokens that come out; 16 in the paper, 8 a hemisphere.
        hidden: width of the MLP; default 4 m; 1024 in the paper, of m = 768.
        grid: rows and columns that the tokens come from, whose places keys then have; default
            areas find their tokens by content alone. It needs an m that is a multiple of 4.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pool = make(dim=8, grid=(2, 3), areas=3)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 6, 8))).shape
        (1, 3, 8)
    """
    check_heads(dim, heads)
    check_count("areas", areas)
    hidden = 4 * dim if hidden is None else hidden
    check_count("hidden", hidden)
    place = None if grid is None else check_grid(grid)
    if place is not None and dim % 4:
        raise ValueError(f"grid: needs a dim that is a multiple of 4, got {dim}")

    def init(key):
        queries, feed, *keys = jax.random.split(key, 6)
        names = ("query", "key", "value", "output")
        return {
            **{of: affine_init(k, dim, dim) for of, k in zip(names, keys, strict=True)},
            "queries": jax.random.normal(queries, (areas, dim)),
            "query_shift": jnp.zeros(dim),
            "mlp": mlp_init(feed, dim, hidden),
            "mlp_norm": norm_init(dim),
            "norm": norm_init(dim),
        }

    def apply(params, x, real):
        positions = None
        if place is not None:
            if x.shape[1] != place[0] * place[1]:
                raise ValueError(f"x: expected {place[0]} x {place[1]} tokens, got {x.shape[1]}")
            positions = grid_positions(place, dim)
        return brain_encoder(params, x, real, heads=heads, positions=positions)

    return framed_pool("brain_encoder", dim=dim, init=init, apply=apply)


MECHANISM = Mechanism(
    name="brain_encoder",
    title="Transformer brain encoders",
    arxiv="2505.17329",
    family="pooling",
    equation="t = attend(Q, F + P, F), y = LN(t + MLP(LN(t)))",
    core=brain_encoder,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=(
        *("query", "key", "value", "output", "queries", "query_shift"),
        *("mlp", "mlp_norm", "norm"),
    ),
)
