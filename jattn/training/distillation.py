"""Distilling which item follows which into a table of embeddings (TED, arXiv 2311.01056).

    N_ab   = how often b comes after a, within `span` steps, in all sequences
    label  = softmax_b( N_ab / (max_b N_ab) / tau )
    loss   = mean over items a of  - sum_b label_b ln softmax_b( sqrt(m) e_a . e_b / tau )

A model of sequences that reads out with its table of embeddings, logits = x . E, then prefers what
follows the last item often: what all sequences know about transitions, for what little the model's
own sequences say. The paper adds 0.1 of it to the model's loss, over the items of the batch.

One table on both sides makes e_a . e_b the same from a to b and back, and an item's product with
itself as large as any it has with others of its length: the labels are a pull, not a target in
reach.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_shape

TEMPERATURE = 0.1


def transition_counts(
    tokens: Int[Array, "n t"],
    items: int,
    *,
    mask: Bool[Array, "n t"] | None = None,
    span: int = 1,
) -> Float[Array, "items items"]:
    """N, how often each item comes after each other.

    Args:
        tokens: sequences of items, `[n, t]`.
        items: how many there are.
        mask: True = an item; pairs with others do not count.
        span: steps from the first to the second of a pair, at most.

    Returns:
        `[items, items]`, float32; row a, column b counts b after a.

    Raises:
        ValueError: shapes that do not fit, or a span below 1.

    Reference:
        arXiv 2311.01056.

    Example:
        >>> transition_counts(jnp.array([[0, 1, 0, 1, 1]]), 2).tolist()
        [[0.0, 2.0], [1.0, 1.0]]
    """
    sizes: dict[str, int] = {}
    check_shape("tokens", tokens, "n t", sizes)
    mask = jnp.ones(tokens.shape, bool) if mask is None else mask
    check_shape("mask", mask, "n t", sizes)
    if span < 1:
        raise ValueError(f"span: expected at least 1, got {span}")
    counts = jnp.zeros((items, items))
    for step in range(1, min(span, sizes["t"] - 1) + 1):
        both = mask[:, :-step] & mask[:, step:]
        counts = counts.at[tokens[:, :-step], tokens[:, step:]].add(both.astype(counts.dtype))
    return counts


def transition_targets(
    counts: Float[Array, "*batch n"], *, temperature: float = TEMPERATURE
) -> Float[Array, "*batch n"]:
    """The labels: softmax of counts over the largest of their row, over the temperature.

    Args:
        counts: rows of N; a row of zeros gives equal labels.
        temperature: tau, > 0; near 0 all weight is on the most frequent successors.

    Returns:
        `[..., n]`, rows that sum to 1.

    Raises:
        ValueError: a temperature that is not positive.

    Reference:
        arXiv 2311.01056.

    Example:
        >>> transition_targets(jnp.array([4.0, 4.0, 0.0]), temperature=0.01).tolist()
        [0.5, 0.5, 0.0]
    """
    _check_temperature(temperature)
    largest = counts.max(-1, keepdims=True)
    return jax.nn.softmax(counts / jnp.where(largest == 0, 1, largest) / temperature, axis=-1)


def transition_loss(
    embedding: Float[Array, "n m"],
    targets: Float[Array, "n n"],
    items: Int[Array, "*batch"],
    *,
    mask: Bool[Array, "*batch"] | None = None,
    temperature: float = TEMPERATURE,
) -> Float[Array, ""]:
    """The cross entropy of labels and what the table itself says about successors.

    Args:
        embedding: E, `[n, m]`.
        targets: the labels of all items, `[n, n]`.
        items: those to learn about, with repetitions: a batch of sequences, say.
        mask: True = an item; others do not count.
        temperature: tau, > 0.

    Returns:
        The mean over items, in nats; at least the mean entropy of their labels.

    Raises:
        ValueError: shapes that do not fit, or a temperature that is not positive.

    Reference:
        arXiv 2311.01056.

    Example:
        >>> loss = transition_loss(jnp.zeros((4, 8)), jnp.eye(4), jnp.array([0, 2]))
        >>> round(float(loss - jnp.log(4)), 5)
        0.0
    """
    sizes: dict[str, int] = {}
    check_shape("embedding", embedding, "n m", sizes)
    check_shape("targets", targets, "n n", sizes)
    _check_temperature(temperature)
    mask = jnp.ones(items.shape, bool) if mask is None else mask
    logits = sizes["m"] ** 0.5 * embedding[items] @ embedding.T
    found = -(targets[items] * jax.nn.log_softmax(logits / temperature, axis=-1)).sum(-1)
    return (found * mask).sum() / jnp.maximum(mask.sum(), 1)


def _check_temperature(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
