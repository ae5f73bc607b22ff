"""In-context classification: items with labels, then an item whose label was among them.

    item_1 label_1 item_2 label_2 ... item_n label_n  query        (2 n + 1 vectors)

An item is its class's mean and noise; each class has one label, for all time. In training a
sequence has few classes, several copies of each. In the test classes and labels are new, and two
slots hold the very item that is asked for, with other labels: the answer shows which slot counts.

Reference: arXiv 2502.01951, after arXiv 2312.03002.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_count


class Classified(NamedTuple):
    """One sequence, or a batch of them.

    Attributes:
        x: vectors `[..., t, m]`, the query last.
        answer: index of the query's label `[...]`.
        labels: index of each slot's label `[..., n]`.
    """

    x: Float[Array, "*batch t m"]
    answer: Int[Array, "*batch"]
    labels: Int[Array, "*batch n"]


class Classes(NamedTuple):
    """Means `[k, m]`, the label of each class `[k]`, and the vectors of labels `[l, m]`."""

    means: Float[Array, "k m"]
    label_of: Int[Array, " k"]
    labels: Float[Array, "l m"]


def make_classes(key: jax.Array, *, classes: int, labels: int, dim: int) -> Classes:
    """Draws means and vectors of labels of norm about 1, and a label for each class.

    Args:
        key: PRNG key.
        classes: how many.
        labels: how many, shared by the classes.
        dim: m.

    Example:
        >>> make_classes(jax.random.key(0), classes=8, labels=4, dim=16).means.shape
        (8, 16)
    """
    for name, value in (("classes", classes), ("labels", labels), ("dim", dim)):
        check_count(name, value)
    of_means, of_labels, which = jax.random.split(key, 3)
    scale = dim**-0.5
    return Classes(
        scale * jax.random.normal(of_means, (classes, dim)),
        jax.random.randint(which, (classes,), 0, labels),
        scale * jax.random.normal(of_labels, (labels, dim)),
    )


def seen_classes(
    known: Classes,
    *,
    pairs: int,
    copies: int,
    noise: float,
    asked: tuple[int, ...] = (),
) -> Callable[[jax.Array], Classified]:
    """Makes the sampler of training sequences.

    Args:
        known: the classes.
        pairs: slots, a multiple of the copies.
        copies: slots of each class of a sequence, shuffled.
        noise: deviation of an item from its class, in units of a mean's norm.
        asked: slots one of whose classes is asked for, negative from the end; all if empty.

    Returns:
        `sample(key) -> Classified`.

    Raises:
        ValueError: copies that do not divide the pairs.

    Example:
        >>> known = make_classes(jax.random.key(0), classes=8, labels=4, dim=16)
        >>> sample = seen_classes(known, pairs=4, copies=2, noise=0.5)
        >>> sample(jax.random.key(1)).x.shape
        (9, 16)
    """
    if pairs % copies:
        raise ValueError(f"copies: expected a divisor of {pairs} pairs, got {copies}")
    kinds, (number, dim) = pairs // copies, known.means.shape
    slots = jnp.array(asked or range(pairs)) % pairs

    def sample(key: jax.Array) -> Classified:
        first, rest, order, which, of_noise = jax.random.split(key, 5)
        # Distinct classes by offsets from the first: far cheaper than a permutation of all.
        offsets = jnp.cumsum(jax.random.randint(rest, (kinds,), 1, max(number // kinds, 2)))
        drawn = (jax.random.randint(first, (), 0, number) + offsets) % number
        chosen = jax.random.permutation(order, jnp.repeat(drawn, copies))
        query = chosen[slots[jax.random.randint(which, (), 0, len(slots))]]
        classes = jnp.append(chosen, query)
        spread = noise * dim**-0.5 * jax.random.normal(of_noise, (pairs + 1, dim))
        items = (known.means[classes] + spread) / (1 + noise**2) ** 0.5
        labels = known.label_of[chosen]
        return Classified(_interleaved(items, known.labels[labels]), known.label_of[query], labels)

    return sample


def novel_classes(
    known: Classes, *, pairs: int, twice: tuple[int, int]
) -> Callable[[jax.Array], Classified]:
    """Makes the sampler of test sequences: two slots hold the item that is asked for.

    Args:
        known: the vectors of labels are used; the classes are new.
        pairs: slots.
        twice: those two, negative from the end. Their labels differ; `answer` is the first's.

    Returns:
        `sample(key) -> Classified`.

    Example:
        >>> known = make_classes(jax.random.key(0), classes=8, labels=4, dim=16)
        >>> found = novel_classes(known, pairs=4, twice=(0, -1))(jax.random.key(1))
        >>> bool((found.x[0] == found.x[-1]).all()), bool((found.x[6] == found.x[0]).all())
        (True, True)
    """
    one, other = (slot % pairs for slot in twice)
    number, dim = known.labels.shape

    def sample(key: jax.Array) -> Classified:
        of_items, of_labels = jax.random.split(key)
        items = dim**-0.5 * jax.random.normal(of_items, (pairs, dim))
        items = items.at[other].set(items[one])
        labels = jax.random.permutation(of_labels, number)[jnp.arange(pairs) % number]
        items = jnp.concatenate([items, items[one][None]])
        return Classified(_interleaved(items, known.labels[labels]), labels[one], labels)

    return sample


def _interleaved(items: Float[Array, "k m"], labels: Float[Array, "n m"]) -> Float[Array, "t m"]:
    """Items and labels in turn, the last item alone."""
    pairs = jnp.stack([items[:-1], labels], axis=1).reshape(-1, items.shape[1])
    return jnp.concatenate([pairs, items[-1:]])
