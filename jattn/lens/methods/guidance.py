"""Head-wise guidance: heads are perturbed toward the identity, and found greedily (2506.10978).

    A' = (1 - u) A + u I,   so   z' = z + u (v - z)      of some heads, u in [0, 1]

No map is held: it runs with any fused engine, in self-attention. Guidance then goes away from what
the perturbed model says, `eps + w (eps - eps_perturbed)`; u = 1 is perturbed-attention guidance.
HeadHunter adds, round by round, the heads with which a score of guided samples is best.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.lens.edits import At
from jattn.lens.methods.method import Method


def soft_identity(strength: Float[Array, "L h"]) -> At:
    """The edit.

    Args:
        strength: u of each head; 0 changes nothing, 1 has each token read its own value alone.
    """
    return At("z", _toward_own_value, jnp.asarray(strength))


def guide(
    predicted: Float[Array, "*batch"],
    perturbed: Float[Array, "*batch"],
    weight: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """Away from the perturbed prediction; a weight of 0 is no guidance.

    Example:
        >>> float(guide(jnp.array(1.0), jnp.array(0.5), 2.0))
        2.0
    """
    return predicted + weight * (predicted - perturbed)


def greedy_head_search(
    score: Callable[[Bool[Array, " n"]], Float[Array, ""]],
    heads: int,
    *,
    rounds: int,
    top_k: int = 1,
    batch_size: int = 16,
) -> Bool[Array, " n"]:
    """Heads that raise a score most, some more each round, all candidates of one side by side.

    Args:
        score: of a set of heads, a mask `[n]`; higher is better.
        heads: n, how many there are.
        rounds: of search.
        top_k: heads that each round adds.
        batch_size: candidates at a time.
    """
    check_count("rounds", rounds)
    check_count("top_k", top_k)
    if rounds * top_k > heads:
        raise ValueError(f"rounds: expected {heads} heads at most, got {rounds} times {top_k}")

    def add(chosen, _):
        tried = chosen | jnp.eye(heads, dtype=bool)
        scores = jnp.where(chosen, -jnp.inf, lax.map(score, tried, batch_size=batch_size))
        return chosen.at[lax.top_k(scores, top_k)[1]].set(True), None

    return lax.scan(add, jnp.zeros(heads, bool), length=rounds)[0]


def _toward_own_value(z: Any, strength: Any, seen: Any) -> Array:
    value = seen["v"]
    own = jnp.repeat(value, z.shape[2] // value.shape[2], axis=2)
    return z + strength[:, None] * (own - z)


METHOD = Method(
    name="soft_identity",
    title="Where and how to perturb: on the design of perturbation guidance",
    arxiv="2506.10978",
    kind="edit",
    function=soft_identity,
    example=lambda key: {"strength": jax.random.uniform(key, (2, 4))},
    identity={"strength": jnp.zeros((2, 4))},
)
