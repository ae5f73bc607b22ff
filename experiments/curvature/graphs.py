"""Three graphs of about as many nodes: a tree, a ring and a grid; distances between their nodes."""

from collections.abc import Callable

import numpy as np


def distances(edges: list[tuple[int, int]]) -> np.ndarray:
    """Lengths `[n, n]` of the shortest paths between the nodes of a connected graph."""
    n = 1 + max(max(edge) for edge in edges)
    found = np.where(np.eye(n, dtype=bool), 0, n)
    for a, b in edges:
        found[a, b] = found[b, a] = 1
    for via in range(n):
        found = np.minimum(found, found[:, via, None] + found[via])
    return found


def tree(depth: int = 5) -> np.ndarray:
    """A binary tree of so many levels."""
    return distances([(node, (node - 1) // 2) for node in range(1, 2**depth - 1)])


def ring(nodes: int = 32) -> np.ndarray:
    """A ring."""
    return distances([(node, (node + 1) % nodes) for node in range(nodes)])


def grid(side: int = 6) -> np.ndarray:
    """A square grid."""
    across = [(i * side + j, i * side + j + 1) for i in range(side) for j in range(side - 1)]
    down = [(i * side + j, (i + 1) * side + j) for i in range(side - 1) for j in range(side)]
    return distances(across + down)


GRAPHS: dict[str, Callable[[], np.ndarray]] = {"tree": tree, "ring": ring, "grid": grid}
