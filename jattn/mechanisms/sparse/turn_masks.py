"""Turn-aware masks of FocuSFT (arXiv 2605.09932): what is given is read in both directions.

While a model is fine-tuned, tokens of a user's turn see all of that turn and all before it; those
of the assistant see what is before them, as they are generated:

    i sees j:   turn(j) < turn(i),   or the same turn, and it is the user's or j <= i

so that what is given need not be squeezed through the first token.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jattn.attention import masks
from jattn.checks import check_shape


def turn_mask(is_answer: Bool[Array, "b t"], real: Bool[Array, "b t"] | None = None) -> masks.Mask:
    """Who sees whom in a chat of any number of turns.

    Args:
        is_answer: True = a token that the assistant wrote, which the loss counts.
        real: True = no padding; padding sees nothing and is not seen.

    Returns:
        A `Mask`.

    Raises:
        ValueError: shapes that differ.

    Reference:
        arXiv 2605.09932.

    Example:
        >>> mask = turn_mask(jnp.array([[False, False, True, True]]))
        >>> mask.dense(4, 4)[0, 0].astype(int).tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    """
    check_shape("is_answer", is_answer, "b t", {})
    answers = jnp.asarray(is_answer, bool)
    changes = jnp.pad(answers[:, 1:] != answers[:, :-1], ((0, 0), (1, 0)))
    turn = jnp.cumsum(changes, axis=1)
    # Turns follow each other: what stands earlier is of an earlier turn or of the same.
    looks_ahead = masks.from_array(~answers[:, None, :, None])
    return _without_padding(masks.causal() | (masks.segments(turn) & looks_ahead), real)


def prefix_mask(context: Int[Array, " b"], real: Bool[Array, "b t"] | None = None) -> masks.Mask:
    """The form of one turn: the first tokens see each other, the others all before them.

    Args:
        context: how many first tokens are given, of each row.
        real: True = no padding.

    Example:
        >>> prefix_mask(jnp.array([2])).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    given = masks.prefix(context)
    return _without_padding(masks.causal() | (given & given.T), real)


def _without_padding(mask: masks.Mask, real: Bool[Array, "b t"] | None) -> masks.Mask:
    if real is None:
        return mask
    there = masks.padding(real)
    return mask & there & there.T
