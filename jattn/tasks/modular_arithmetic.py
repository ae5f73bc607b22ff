"""Modular arithmetic: all problems `a o b = ? mod p`, a half of which is enough to learn the rest.

    a b =      tokens 0 to p - 1, and p, at which the answer is asked for

Reference: arXiv 2605.20441, after arXiv 2201.02177.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_choice, check_count

Operation = Literal["add", "subtract", "multiply", "divide", "random"]
OPERATIONS = ("add", "subtract", "multiply", "divide")
UNDEFINED = -1  # the answer of a division by zero


def answers(operation: Operation, modulus: int, *, seed: int = 0) -> Int[Array, " n"]:
    """Answers of all p^2 problems, problem n = p a + b.

    Args:
        operation: one of `OPERATIONS`, or `"random"`: answers that no rule gives, to compare with.
        modulus: p; a prime if it divides.
        seed: of random answers.

    Returns:
        `[p^2]`, in 0 to p - 1; -1 where b = 0 divides.

    Raises:
        ValueError: an unknown operation, or a division where p is no prime.

    Reference:
        arXiv 2605.20441.

    Example:
        >>> answers("divide", 3).tolist()
        [-1, 0, 0, -1, 1, 2, -1, 2, 1]
    """
    check_choice("operation", operation, (*OPERATIONS, "random"))
    check_count("modulus", modulus, least=2)
    if operation == "divide" and any(modulus % n == 0 for n in range(2, int(modulus**0.5) + 1)):
        raise ValueError(f"modulus: expected a prime, for it divides, got {modulus}")
    if operation == "random":
        return jax.random.randint(jax.random.key(seed), (modulus**2,), 0, modulus)
    a, b = jnp.divmod(jnp.arange(modulus**2), modulus)
    if operation == "divide":
        products = jnp.arange(modulus)[:, None] * b % modulus
        return jnp.where(b == 0, UNDEFINED, (products == a).argmax(0))
    found = {"add": a + b, "subtract": a - b, "multiply": a * b}
    return found[operation] % modulus


def tokens(problems: Int[Array, "*batch"], modulus: int) -> Int[Array, "*batch 3"]:
    """The tokens of problems, by their numbers n = p a + b.

    Args:
        problems: numbers, of any shape.
        modulus: p.

    Returns:
        `[..., 3]`: a, b, p.

    Example:
        >>> tokens(jnp.array([5]), 3).tolist()
        [[1, 2, 3]]
    """
    first, second = jnp.divmod(problems, modulus)
    return jnp.stack([first, second, jnp.full_like(first, modulus)], axis=-1)


def shuffled(key: jax.Array, answers: Int[Array, " n"]) -> Int[Array, " n"]:
    """Numbers of all problems in a random order, those without an answer behind all others.

    The first so many are to train on, the others to test.

    Args:
        key: PRNG key.
        answers: of all problems.

    Returns:
        A permutation `[n]`.

    Example:
        >>> shuffled(jax.random.key(0), answers("divide", 3))[6:].tolist()
        [0, 3, 6]
    """
    last: Float[Array, " n"] = jnp.where(answers == UNDEFINED, 1 + jnp.arange(answers.size), 0.0)
    return jnp.argsort(last + jax.random.uniform(key, answers.shape))
