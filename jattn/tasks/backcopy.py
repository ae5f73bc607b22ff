"""Bigram-backcopy: a Markov chain of tokens in which triggers repeat the token before them.

    0 a b c T1 c d e T3 e ...        0 begins a sequence, T1, T2, ... are triggers

After a trigger the token before it comes again; after any other token comes one that a table of
bigrams gives. Only the first needs attention, so heads have often nothing to do.

Reference: arXiv 2410.13835.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.tasks.copying import Copying


def bigrams(
    key: jax.Array,
    vocabulary: int,
    triggers: int,
    *,
    trigger_rate: float = 0.25,
    concentration: float = 0.5,
) -> Float[Array, "V V"]:
    """Draws a table of bigrams; row: a token, column: the probability that this one comes next.

    Args:
        key: a PRNG key.
        vocabulary: number of tokens V: 0 begins, 1 ... triggers are triggers, then ordinary ones.
        triggers: number of triggers, at least 1.
        trigger_rate: probability of a trigger after an ordinary token.
        concentration: of the Dirichlet distribution of ordinary tokens in each row; smaller is
            more predictable.

    Returns:
        `[V, V]`, rows sum to one. Nothing but ordinary tokens follows 0; rows of triggers are not
        used.

    Raises:
        ValueError: sizes that do not fit.

    Example:
        >>> table = bigrams(jax.random.key(0), 8, 2)
        >>> table.shape, float(table[0, :3].sum()), round(float(table[5, 1:3].sum()), 3)
        ((8, 8), 0.0, 0.25)
    """
    if triggers < 1:
        raise ValueError(f"triggers: expected at least 1, got {triggers}")
    if vocabulary < triggers + 3:
        raise ValueError(f"vocabulary: expected at least {triggers + 3}, got {vocabulary}")
    if not 0 < trigger_rate < 1:
        raise ValueError(f"trigger_rate: expected between 0 and 1, got {trigger_rate}")
    ordinary = vocabulary - triggers - 1
    weights = jnp.full(ordinary, concentration)
    words = jax.random.dirichlet(key, weights, (vocabulary,))
    rate = jnp.where(jnp.arange(vocabulary) == 0, 0.0, trigger_rate)[:, None]
    to_triggers = jnp.broadcast_to(rate / triggers, (vocabulary, triggers))
    return jnp.concatenate([0 * rate, to_triggers, (1 - rate) * words], axis=1)


def backcopy(
    table: Float[Array, "V V"], triggers: int, length: int
) -> Callable[[jax.Array], Copying]:
    """Makes the sampler of one sequence.

    Args:
        table: of bigrams; see `bigrams`.
        triggers: tokens 1 ... triggers repeat the one before them.
        length: tokens a sequence, at least 3.

    Returns:
        `sample(key) -> Copying`, to be vmapped over keys; what follows a trigger is copied.

    Raises:
        ValueError: a length below 3.

    Reference:
        arXiv 2410.13835.

    Example:
        >>> draw = backcopy(bigrams(jax.random.key(0), 8, 2), 2, 32)
        >>> tokens, copied = draw(jax.random.key(1))
        >>> places = jnp.flatnonzero(copied)
        >>> bool((tokens[places] == tokens[places - 2]).all()), int(tokens[0])
        (True, 0)
    """
    if length < 3:
        raise ValueError(f"length: expected at least 3 tokens, got {length}")
    logits = jnp.log(table)

    def sample(key: jax.Array) -> Copying:
        def follow(carry, key):
            before, last = carry
            copies = (last >= 1) & (last <= triggers)
            following = jnp.where(copies, before, jax.random.categorical(key, logits[last]))
            return (last, following), (following, copies)

        first = jnp.zeros((), jnp.int32)
        _, (rest, copied) = jax.lax.scan(follow, (first, first), jax.random.split(key, length - 1))
        tokens = jnp.concatenate([first[None], rest.astype(jnp.int32)])
        return Copying(tokens, jnp.concatenate([jnp.zeros(1, bool), copied]))

    return sample
