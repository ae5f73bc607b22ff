"""Differences of two groups: permutation p values, false discoveries, bootstrap intervals.

What is permuted must be exchangeable: subjects, documents, conditions; never points in time.

    p = (1 + #{null >= statistic}) / (B + 1)

so p has a floor of 1 / (B + 1), and the Benjamini-Hochberg procedure over M tests at level q can
reject only where at least M / (q (B + 1)) of them stand at the floor; see `least_at_floor`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int
from scipy.stats import false_discovery_control

from jattn.checks import check_count, check_number

TIES = 1e-12


def group_difference(values: Float[Array, "n c"], label: Int[Array, " n"]) -> Float[Array, " c"]:
    """Mean of group 1 less that of group 0, of each column.

    Args:
        values: rows are subjects.
        label: 0 or 1 for each.

    Raises:
        ValueError: a group without subjects.

    Example:
        >>> group_difference(jnp.array([[1.0], [2.0], [5.0]]), jnp.array([0, 0, 1])).tolist()
        [3.5]
    """
    _check_groups(label)
    one = label.astype(values.dtype)
    mean = lambda share: share @ values / share.sum()
    return mean(one) - mean(1 - one)


def permuted_differences(
    values: Float[Array, "n c"], label: Int[Array, " n"], permutations: Int[Array, "b n"]
) -> Float[Array, "b c"]:
    """`|group_difference|` under `label[permutations[b]]`, for each row b.

    Example:
        >>> values, label = jnp.array([[1.0], [3.0]]), jnp.array([0, 1])
        >>> permuted_differences(values, label, jnp.array([[1, 0]])).tolist()
        [[2.0]]
    """
    _check_groups(label)
    return jax.vmap(lambda order: jnp.abs(group_difference(values, label[order])))(permutations)


def draw_permutations(key: jax.Array, count: int, n: int) -> Int[Array, "count n"]:
    """So many permutations of 0 to n - 1.

    Example:
        >>> draw_permutations(jax.random.key(0), 2, 3).sum(1).tolist()
        [3, 3]
    """
    check_count("count", count)
    return jax.vmap(lambda k: jax.random.permutation(k, n))(jax.random.split(key, count))


def permutation_p_values(
    statistic: Float[Array, " c"], null: Float[Array, "b c"], *, family_wise: bool = False
) -> Float[Array, " c"]:
    """The share of null rows, and of the statistic itself, that reach the statistic.

    Args:
        statistic: large where there is an effect.
        null: the same under permutations.
        family_wise: compare with the largest of each null row: the chance of even one false
            discovery is then at most p.

    Example:
        >>> permutation_p_values(jnp.array([2.0]), jnp.array([[1.0], [2.0], [0.0]])).tolist()
        [0.5]
    """
    null = null.max(1, keepdims=True) if family_wise else null
    return (1 + (null >= statistic - TIES).sum(0)) / (null.shape[0] + 1)


def false_discovery_q(
    p_value: Float[Array, "*shape"], where: np.ndarray | None = None
) -> Float[np.ndarray, "*shape"]:
    """Benjamini and Hochberg's adjusted p values: all below q are discoveries at level q.

    Args:
        p_value: of any shape.
        where: True = a test; the others get 1. Default all.

    Reference:
        `scipy.stats.false_discovery_control`, which does it.

    Example:
        >>> false_discovery_q(jnp.array([0.01, 0.5])).tolist()
        [0.019999999552965164, 0.5]
    """
    given = np.asarray(p_value)
    chosen = np.ones(given.shape, bool) if where is None else np.asarray(where)
    if not chosen.any():
        raise ValueError("where: expected at least one test, got none")
    found = np.ones_like(given)
    found[chosen] = false_discovery_control(np.minimum(given[chosen], 1.0), method="bh")
    return found


def least_at_floor(tests: int, permutations: int, level: float = 0.05) -> int:
    """How many of the tests must stand at the floor of p before any can be a discovery.

    Example:
        >>> least_at_floor(12, 99), least_at_floor(992, 99)
        (3, 199)
    """
    check_count("tests", tests)
    check_count("permutations", permutations)
    check_number("level", level, above=0)
    return math.ceil(tests / (level * (permutations + 1)) - 1e-9)


def bootstrap_indices(key: jax.Array, count: int, label: Int[Array, " n"]) -> Int[Array, "count n"]:
    """Rows drawn with replacement, each from the group of the row it stands for.

    Example:
        >>> label = jnp.array([0, 1, 1])
        >>> bool((label[bootstrap_indices(jax.random.key(0), 5, label)] == label).all())
        True
    """
    same = jnp.where(label[:, None] == label, 0.0, -jnp.inf)
    draw = lambda k: jax.random.categorical(k, same)
    return jax.vmap(draw)(jax.random.split(key, count))


def bootstrap_interval(
    values: Float[Array, "n c"],
    label: Int[Array, " n"],
    indices: Int[Array, "b n"],
    *,
    level: float = 0.95,
) -> Float[Array, "2 c"]:
    """Percentile interval of `group_difference` over bootstrap rows.

    Args:
        values: rows are subjects.
        label: 0 or 1 for each.
        indices: of `bootstrap_indices`.
        level: how much of the distribution lies inside.

    Example:
        >>> values, label = jnp.array([[1.0], [3.0]]), jnp.array([0, 1])
        >>> bootstrap_interval(values, label, jnp.array([[0, 1]])).tolist()
        [[2.0], [2.0]]
    """
    found = jax.vmap(lambda rows: group_difference(values[rows], label))(indices)
    tail = (1 - level) / 2
    return jnp.quantile(found, jnp.array([tail, 1 - tail]), axis=0)


def _check_groups(label) -> None:
    if isinstance(label, Tracer):
        return
    found = set(np.unique(np.asarray(label)).tolist())
    if found != {0, 1}:
        raise ValueError(f"label: expected both groups, 0 and 1, got {sorted(found)}")
