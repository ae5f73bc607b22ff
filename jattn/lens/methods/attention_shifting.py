"""Attention shifting: unlearning by taking attention off what matters to a fact (2510.17210).

Important tokens are those whose masking makes the next token less certain. The frozen model's maps
A0 become targets, with the important tokens suppressed on what is to be forgotten and reinforced
on what is to be kept,

    A_sup ~ (1 - lam 1_j) A0,   A_rein ~ (1 + mu 1_j) A0
    L = a KL(A || A_sup) + (1 - a) KL(A || A_rein)

and adapters of queries and keys are trained by that alone. Direction of KL and threshold are ours.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.lens.methods.method import Method, example_maps


def token_importance(
    entropy_without: Float[Array, " n"], entropy: Float[Array, ""] | float
) -> Float[Array, " n"]:
    """Entropy of the prediction with each token masked, less that with all of them."""
    return entropy_without - entropy


def shifted_target(
    probs: Float[Array, "*heads t s"],
    important: Bool[Array, " s"],
    amount: Float[Array, ""] | float,
) -> Float[Array, "*heads t s"]:
    """Maps with important keys times 1 + amount, rows normalised.

    Args:
        probs: A0.
        important: keys.
        amount: mu to reinforce; -lam to suppress, -1 removes the keys. A row with nothing else
            then stays.
    """
    moved = probs * jnp.where(important, 1 + amount, 1)
    total = moved.sum(-1, keepdims=True)
    return jnp.where(total > 0, moved / jnp.where(total > 0, total, 1), probs)


def shifting_loss(
    probs: Float[Array, "*heads t s"], target: Float[Array, "*heads t s"], eps: float = 1e-8
) -> Float[Array, ""]:
    """KL of maps from their targets, mean over heads, rows and layers; not negative.

    Keys that the target hides count as eps.
    """
    seen = probs > 0
    log = lambda x: jnp.log(jnp.where(seen, jnp.maximum(x, eps), 1))
    return (probs * (log(probs) - log(target))).sum(-1).mean()


def _example(key):
    maps: jax.Array = example_maps(key, 2, 3, 8, 8)
    return dict(probs=maps, important=jnp.arange(8) == 2, amount=-0.7)


METHOD = Method(
    name="shifted_target",
    title="Attention shifting for selective unlearning",
    arxiv="2510.17210",
    kind="maps",
    function=shifted_target,
    example=_example,
    identity={"amount": 0.0},
)
