"""Attention pooling by a network's scores (Ilse et al. 2018, arXiv 1802.04712; 2412.03215).

    A = softmax_n(MLP(x)),   y = A x

A small network scores each token by itself; there are no queries and keys.

Distinctive: it selects tokens; whatever comes out is a convex combination of them. Over frozen
encoders it goes by the name of ABMILP; there may be self-attention of one head before the scorer
(`"map"`), or before both scorer and sum (`"both"`), and fixed positions for the scorer.

Limits: a last layer of zeros is the mean.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import affine, affine_init
from jattn.mechanisms.layers.weighted_sums import softmax_sum
from jattn.mechanisms.mechanism import Mechanism

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}
ATTENTIONS = ("none", "map", "both")


def token_scores(
    layers: list, x: Float[Array, "*batch m"], activation: str = "tanh"
) -> Float[Array, "*batch k"]:
    """What a network of affine layers makes of each token.

    Args:
        layers: parameters of `affine`, with an activation between each two.
        x: tokens.
        activation: `"tanh"` or `"relu"`.
    """
    for index, layer in enumerate(layers):
        x = affine(layer, ACTIVATIONS[activation](x) if index else x)
    return x


def multiple_instance_pooling(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    activation: str = "tanh",
    attention: str = "none",
    positions: Float[Array, "n m"] | None = None,
) -> Float[Array, "b 1 m"]:
    """`softmax(MLP(x)) x` over tokens.

    Args:
        params: `layers`, a list of affine layers to one number; `attention` with `query`, `key`,
            `value` and `output`, where there is any.
        x: the tokens.
        real: False where x is padding; default none is. Zeros come out where none is real.
        activation: between layers, `"tanh"` or `"relu"`.
        attention: `"none"`, `"map"` before the scorer, or `"both"` before it and the sum.
        positions: added to what the scorer sees; none by default.

    Reference:
        arXiv 1802.04712, 2412.03215.

    Example:
        >>> layers = [{"weight": jnp.zeros((1, 1)), "bias": jnp.zeros(1)}]
        >>> multiple_instance_pooling({"layers": layers}, jnp.array([[[1.0], [3.0]]])).tolist()
        [[[2.0]]]
    """
    seen = x
    if attention != "none":
        own = params["attention"]
        query, key, value = (affine(own[of], x) for of in ("query", "key", "value"))
        seen = affine(own["output"], attentive_pool(query, key, value, real))
    summed = seen if attention == "both" else x
    seen = seen if positions is None else seen + positions.astype(x.dtype)
    return softmax_sum(token_scores(params["layers"], seen, activation), summed, real)


def make(*, dim: int, depth: int = 2, activation: str = "tanh", attention: str = "none") -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        depth: layers of the scorer; all but the last are m wide.
        activation: between them, `"tanh"` or `"relu"`.
        attention: `"none"`, or self-attention before the scorer, `"map"`, or both, `"both"`.

    Raises:
        ValueError: an unknown name, or a number below 1.

    Example:
        >>> pool = make(dim=8)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    check_count("dim", dim)
    check_count("depth", depth)
    check_choice("activation", activation, tuple(ACTIVATIONS))
    check_choice("attention", attention, ATTENTIONS)

    def init(key):
        own, *keys = jax.random.split(key, 1 + depth)
        sizes = [dim] * (depth - 1) + [1]
        # A bias of the scores themselves would change nothing.
        layers = [
            affine_init(k, dim, size, bias=layer < depth - 1)
            for layer, (k, size) in enumerate(zip(keys, sizes, strict=True))
        ]
        if attention == "none":
            return {"layers": layers}
        names = ("query", "key", "value", "output")
        keys = jax.random.split(own, 4)
        maps = {name: affine_init(k, dim, dim) for name, k in zip(names, keys, strict=True)}
        return {"layers": layers, "attention": maps}

    def apply(params, x, real):
        return multiple_instance_pooling(
            params, x, real, activation=activation, attention=attention
        )

    return framed_pool("multiple_instance_pooling", dim=dim, init=init, apply=apply)


MECHANISM = Mechanism(
    name="multiple_instance_pooling",
    title="Attention-based deep multiple instance learning (ABMIL, ABMILP)",
    arxiv="1802.04712",
    family="pooling",
    equation="y = softmax_n(MLP(x)) x",
    core=multiple_instance_pooling,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=("layers",),
)
