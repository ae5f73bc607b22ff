"""One tree of parts from all layers of reversed attention (arXiv 2304.03282).

    D_ji   = sum over layers of D_ji of that layer     what j takes from i on the whole
    r_j    = sum_{i != j} D_ji                         what j takes from others
    parent = argmax over j with r_j > r_i of D_ji

Layers that prune see fewer tokens, so their D are put back to where their tokens came from; a token
that is pruned takes and sends nothing later. A token's parent takes more than the token itself, so
there are no circles, and who takes most is the root. That rule is our own: the paper says that a
tree grows from the leaves to a root, and not how it is read.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_count, check_shape


def sum_over_layers(
    dependencies: Sequence[Float[Array, "b _ _"]],
    indices: Sequence[Int[Array, "b _"]],
    count: int,
) -> Float[Array, "b t t"]:
    """D of all layers together, among all tokens.

    Args:
        dependencies: D of each layer, `[b, n, n]`, n the tokens that it sees.
        indices: which of all tokens those are, `[b, n]`.
        count: of all tokens, t.

    Returns:
        `[b, t, t]`; rows receive, columns send.

    Raises:
        ValueError: shapes that do not fit, or no layer.

    Example:
        The second layer sees tokens 0 and 2 of 3:

        >>> first, second = jnp.eye(3)[None], jnp.array([[[0.0, 5.0], [0.0, 0.0]]])
        >>> indices = [jnp.arange(3)[None], jnp.array([[0, 2]])]
        >>> sum_over_layers([first, second], indices, 3)[0].tolist()
        [[1.0, 0.0, 5.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_count("count", count)
    if not dependencies or len(dependencies) != len(indices):
        raise ValueError(
            "indices: expected those of each of 1 or more layers, got "
            f"{len(indices)} for {len(dependencies)}"
        )
    total = jnp.zeros((len(dependencies[0]), count, count), dependencies[0].dtype)
    put = jax.vmap(lambda into, where, what: into.at[where[:, None], where[None]].add(what))
    for dependency, index in zip(dependencies, indices, strict=True):
        sizes: dict[str, int] = {"b": len(total)}
        check_shape("dependencies", dependency, "b n n", sizes)
        check_shape("indices", index, "b n", sizes)
        total = put(total, index, dependency)
    return total


def tree(dependency: Float[Array, "b t t"]) -> Int[Array, "b t"]:
    """The parent of each token, and of the root itself.

    Args:
        dependency: D, of one layer or of `sum_over_layers`.

    Returns:
        `[b, t]`; following parents ends at the root, from every token. Between tokens that take
        equally much, the earlier one counts as taking more.

    Reference:
        arXiv 2304.03282; the rule is our own.

    Example:
        >>> tree(jnp.array([[[0.2, 0.9, 0.1], [0.3, 0.1, 0.8], [0.1, 0.2, 0.7]]])).tolist()
        [[1, 1, 1]]
    """
    count = dependency.shape[1]
    taken = jnp.where(jnp.eye(count, dtype=bool), 0.0, dependency).sum(2)
    rank = jnp.argsort(jnp.argsort(-taken, axis=1, stable=True), axis=1)
    above = rank[:, :, None] < rank[:, None, :]
    parent = jnp.argmax(jnp.where(above, dependency, -jnp.inf), axis=1)
    return jnp.where(rank == 0, jnp.arange(count), parent)


def depths(parents: Int[Array, "b t"]) -> Int[Array, "b t"]:
    """How many steps each token is from its root.

    Args:
        parents: as `tree` gives them.

    Example:
        >>> depths(jnp.array([[1, 1, 0]])).tolist()
        [[1, 0, 2]]
    """
    index = jnp.broadcast_to(jnp.arange(parents.shape[1]), parents.shape)

    def up(_, found):
        at, steps = found
        above = jnp.take_along_axis(parents, at, axis=1)
        return above, steps + (above != at)

    return jax.lax.fori_loop(0, parents.shape[1] - 1, up, (index, jnp.zeros_like(index)))[1]
