"""Attention-challenging multiple instance learning, ACMIL (Zhang et al. 2023, arXiv 2311.07125).

    z = relu(x W),   S = (tanh(z V + b) * sigmoid(z U + c)) W_a + a
    f_m = sum_n softmax_n(S_m)_n z_n

M branches attend to a bag of instances. In training, of each branch's K largest scores a share p is
hidden, so that weight goes to others; and branches are kept apart by the cosines of their maps.

Distinctive: the mean of the branches' maps, which is the bag's, gives the mean of their outputs.
A loss is `CE(bag) + mean_m CE(f_m) + jattn.losses.attention_maps.diversity`.

Limits: M = 1 without hiding is gated attention pooling (ABMIL, arXiv 1802.04712). Hidden before
the softmax or behind it and renormalised is the same: A_i / (1 - sum of the hidden).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count, check_number
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import affine, affine_init
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.weighted_sums import softmax_sum
from jattn.mechanisms.mechanism import Mechanism


def gated_attention_scores(params: dict, z: Float[Array, "b n m"]) -> Float[Array, "b n k"]:
    """`(tanh(z V + b) * sigmoid(z U + c)) W_a + a`, a score for each instance and branch.

    Args:
        params: affine maps `value`, V; `gate`, U, or none, which leaves tanh alone; `score`, W_a.
        z: instances.

    Reference:
        arXiv 1802.04712.

    Example:
        >>> one = {"weight": jnp.ones((1, 1))}
        >>> gated_attention_scores({"value": one, "score": one}, jnp.zeros((1, 2, 1))).tolist()
        [[[0.0], [0.0]]]
    """
    hidden = jnp.tanh(affine(params["value"], z))
    if "gate" in params:
        hidden = hidden * jax.nn.sigmoid(affine(params["gate"], z))
    return affine(params["score"], hidden)


def top_k_mask(
    scores: Float[Array, "b n k"],
    uniforms: Float[Array, "b k top"],
    share: float,
    real: Bool[Array, "b n"] | None = None,
) -> Bool[Array, "b n k"]:
    """True for a random share of each branch's largest scores.

    Args:
        scores: of each instance and branch.
        uniforms: random numbers for the largest, the second, ...; those with the smallest numbers
            are hidden, `floor(top share)` of them.
        share: p, in [0, 1].
        real: False where instances are padding; default none is. Of bags with fewer real ones
            than `top`, the share is of those.

    Example:
        >>> scores = jnp.array([[[3.0], [1.0], [2.0], [0.0]]])
        >>> top_k_mask(scores, jnp.array([[[0.1, 0.9]]]), 0.5)[0, :, 0].tolist()
        [True, False, False, False]
    """
    top, n = uniforms.shape[2], scores.shape[1]
    found = scores if real is None else jnp.where(real[..., None], scores, -jnp.inf)
    index = jax.lax.top_k(found.swapaxes(1, 2), top)[1]
    count = jnp.full(len(scores), n) if real is None else real.sum(1)
    count = jnp.minimum(count, top)[:, None, None]
    drawn = jnp.where(jnp.arange(top) < count, uniforms, jnp.inf)
    rank = jnp.argsort(jnp.argsort(drawn, axis=-1), axis=-1)
    chosen = rank < jnp.floor(count * share + 1e-6)
    places = index[..., None] == jnp.arange(n)
    return (places & chosen[..., None]).any(2).swapaxes(1, 2)


def stochastic_top_k_mask(
    scores: Float[Array, "b n k"],
    key: jax.Array,
    *,
    top: int = 10,
    share: float = 0.6,
    real: Bool[Array, "b n"] | None = None,
) -> Bool[Array, "b n k"]:
    """`top_k_mask` with random numbers drawn: what training hides of each branch.

    Args:
        scores: of each instance and branch.
        key: a PRNG key.
        top: K; bags of fewer instances have all of them.
        share: p.
        real: as in `top_k_mask`.

    Raises:
        ValueError: a share outside [0, 1], or K below 1.

    Example:
        >>> hidden = stochastic_top_k_mask(jnp.ones((1, 20, 5)), jax.random.key(0))
        >>> hidden.sum(1).tolist()
        [[6, 6, 6, 6, 6]]
    """
    check_count("top", top)
    check_number("share", share, least=0)
    if share > 1:
        raise ValueError(f"share: expected at most 1, got {share}")
    shape = (len(scores), scores.shape[2], min(top, scores.shape[1]))
    return top_k_mask(scores, jax.random.uniform(key, shape), share, real)


def acmil(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    hidden: Bool[Array, "b n k"] | None = None,
) -> Float[Array, "b k e"]:
    """What each branch reads of a bag; the bag's feature is their mean.

    Args:
        params: `project` `[m, e]`; `value`, `gate` and `score` of `gated_attention_scores`.
        x: instances.
        real: False where x is padding; default none is. Zeros come out where none is real.
        hidden: True where a branch may not look, as of `stochastic_top_k_mask`.

    Reference:
        arXiv 2311.07125.

    Example:
        >>> params = make(dim=4, branches=2).init(jax.random.key(0))
        >>> acmil(params, jnp.ones((1, 3, 4))).shape
        (1, 2, 4)
    """
    z = jax.nn.relu(linear(x, params["project"]))
    return softmax_sum(gated_attention_scores(params, z), z, real, hidden=hidden)


def make(*, dim: int, branches: int = 5, hidden: int = 128) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m of instances, and of what comes out.
        branches: M, and so tokens that come out.
        hidden: width of the scorer.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> pool = make(dim=8)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 9, 8))).shape
        (1, 5, 8)
    """
    for name, number in (("dim", dim), ("branches", branches), ("hidden", hidden)):
        check_count(name, number)

    def init(key):
        project, value, gate, score = jax.random.split(key, 4)
        return {
            "project": linear_init(project, dim, dim),
            "value": affine_init(value, dim, hidden),
            "gate": affine_init(gate, dim, hidden),
            # A bias of the scores themselves would change nothing.
            "score": affine_init(score, hidden, branches, bias=False),
        }

    return framed_pool("acmil", dim=dim, init=init, apply=acmil)


MECHANISM = Mechanism(
    name="acmil",
    title="Attention-challenging multiple instance learning",
    arxiv="2311.07125",
    family="pooling",
    equation="y_m = sum_n softmax_n(W_m (tanh(V z_n) * sigmoid(U z_n))) z_n, z = relu(x W)",
    core=acmil,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=("project", "value", "gate", "score"),
)
