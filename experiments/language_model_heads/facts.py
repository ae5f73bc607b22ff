"""Lists of facts, `name: value value value`, and a question about one of each, with all places."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

NAMES = (
    "Mark", "Anna", "Paul", "Emma", "Jack", "Lucy", "Tom", "Mary", "John", "Sam", "Ben", "Kate",
)  # fmt: skip
VALUES = (
    "red", "blue", "green", "black", "white", "gold", "pink", "grey", "brown", "silver", "orange",
    "purple",
)  # fmt: skip


class Facts(NamedTuple):
    """Questions, one a row, padded behind.

    Attributes:
        tokens: `[n, t]`: the list, the name that is asked for, the answer.
        answer: which tokens are the answer.
        needle: which tokens are the values of the fact that is asked for.
    """

    tokens: Int[Array, "n t"]
    answer: Bool[Array, "n t"]
    needle: Bool[Array, "n t"]


def facts(tokenizer: Any, rng: np.random.Generator, lists: int, count: int) -> Facts:
    """Draws lists of so many facts, and asks for one of each."""
    rows = []
    for _ in range(lists):
        names = [NAMES[i] for i in rng.permutation(len(NAMES))[:count]]
        values = [[VALUES[i] for i in rng.permutation(len(VALUES))[:3]] for _ in names]
        rows.append(_row(tokenizer, names, values, int(rng.integers(count))))
    length = max(len(row[0]) for row in rows)
    columns = zip(*rows, strict=True)
    return Facts(*(jnp.stack([jnp.pad(x, (0, length - len(x))) for x in xs]) for xs in columns))


def _row(tokenizer, names, values, asked) -> tuple[Array, Array, Array]:
    ids: list[int] = []
    needle: list[int] = []
    for number, (name, own) in enumerate(zip(names, values, strict=True)):
        ids += tokenizer.encode(f"{name}:")
        start = len(ids)
        ids += _encoded(tokenizer, own)
        if number == asked:
            needle = list(range(start, len(ids)))
        ids += tokenizer.encode("\n")
    ids += tokenizer.encode(f"{names[asked]}:")
    question = len(ids)
    ids += _encoded(tokenizer, values[asked])
    index = np.arange(len(ids))
    return (
        jnp.asarray(ids, jnp.int32),
        jnp.asarray(index >= question),
        jnp.asarray(np.isin(index, needle)),
    )


def _encoded(tokenizer, words) -> list[int]:
    return [token for word in words for token in tokenizer.encode(f" {word}")]
