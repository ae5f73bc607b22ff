"""Role-aware episodic attention of Rhea (arXiv 2512.06869): instructions stay, turns are fetched.

In long chats a query attends to the instructions, which are always there, to the k turns that are
most like it and least old, and to its own turn; scores of instructions are raised by alpha, those
of what the assistant wrote lowered by beta:

    score_u = cos(query, turn_u) + gamma exp(-age_u / tau)        which turns are fetched

Limits: all turns, alpha = beta = 0 are causal attention. The paper's abstract leaves the formulas
open; these are the simplest that do what it says.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend, masks
from jattn.checks import check_shape
from jattn.mechanisms.layers.norms import unit
from jattn.mechanisms.sparse.tile_scores import top_count

INSTRUCTION, USER, ASSISTANT = 0, 1, 2  # roles of tokens


def select_turns(
    query: Float[Array, "b d"],
    turns: Float[Array, "b n d"],
    ages: Float[Array, "b n"],
    count: int,
    *,
    gamma: float = 0.1,
    tau: float = 4.0,
) -> Bool[Array, "b n"]:
    """Which turns are fetched: those most like the query, young ones before old ones.

    Args:
        query, turns: embeddings.
        ages: in turns.
        count: k, how many are fetched.
        gamma, tau: weight and span of recency.

    Reference:
        arXiv 2512.06869.

    Example:
        >>> turns = jnp.eye(3)[None]
        >>> select_turns(turns[:, 1], turns, jnp.zeros((1, 3)), 1).tolist()
        [[False, True, False]]
    """
    like = jnp.einsum("bd,bnd->bn", unit(query), unit(turns))
    return top_count(like + gamma * jnp.exp(-ages / tau), count)


def role_aware_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    role: Int[Array, "b t"],
    turn: Int[Array, "b t"],
    fetched: Bool[Array, "b n"],
    *,
    alpha: float = 0.0,
    beta: float = 0.0,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """Causal attention to instructions, fetched turns and the token's own turn.

    Args:
        query, key, value: g divides h.
        role: `INSTRUCTION`, `USER` or `ASSISTANT`.
        turn: the number of each token's turn, from 0; that of instructions does not matter.
        fetched: which turns may be looked at, n of them.
        alpha: added to scores of instructions.
        beta: taken from scores of what the assistant wrote.
        scale: of the scores; default `d**-0.5`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2512.06869.

    Example:
        >>> x, zeros = jnp.ones((1, 3, 2, 4)), jnp.zeros((1, 3), int)
        >>> role_aware_attention(x, x, x, zeros, zeros, jnp.ones((1, 1), bool)).shape
        (1, 3, 2, 4)
    """
    sizes = {"t": query.shape[1]}
    check_shape("role", role, "b t", sizes)
    check_shape("turn", turn, "b t", sizes)
    there = jnp.take_along_axis(fetched, jnp.clip(turn, 0, fetched.shape[1] - 1), axis=1)
    always = masks.padding((role == INSTRUCTION) | there)
    bias = alpha * (role == INSTRUCTION) - beta * (role == ASSISTANT)
    bias = bias.astype(jnp.float32)[:, None, None]
    mask = (always | masks.segments(turn)) & masks.causal()
    return attend(query, key, value, mask=mask, bias=bias, scale=scale)
