"""What the studies share: the paper, and the network whose links are known."""

import numpy as np

from jattn.training import Paper

PAPER = Paper("arXiv 2506.08872", "Your brain on ChatGPT")
# 0 -> 1, 1 -> 2, 0 -> 3 and 2 -> 3, sink first.
LINKS = ((1, 0), (2, 1), (3, 0), (3, 2))
STRENGTH = {(1, 0): (0, 0.6), (2, 1): (1, -0.5), (3, 0): (0, 0.4), (3, 2): (1, 0.45)}
CHANNELS = 4
OFF = ~np.eye(CHANNELS, dtype=bool)
TRUE = np.zeros((CHANNELS, CHANNELS), bool)
TRUE[tuple(zip(*LINKS, strict=True))] = True
ABSENT = (2, 0)  # no link, but a path 0 -> 1 -> 2, and a child, 3, of both


def coefficients() -> np.ndarray:
    """A, `[2, 4, 4]`: each channel swings by itself, and acts on others by four links."""
    found = np.zeros((2, CHANNELS, CHANNELS))
    found[0][np.diag_indices(CHANNELS)] = (0.5, 0.4, 0.3, 0.35)
    found[1][np.diag_indices(CHANNELS)] = (-0.7, -0.3, -0.2, -0.25)
    for (sink, source), (lag, strength) in STRENGTH.items():
        found[lag, sink, source] = strength
    return found


def noise() -> np.ndarray:
    """Sigma, `[4, 4]`."""
    return np.diag([1.0, 0.7, 1.3, 0.9])


def name(link: tuple[int, int]) -> str:
    """A link as it is written, source first.

    Example:
        >>> name((1, 0))
        '0 -> 1'
    """
    return f"{link[1]} -> {link[0]}"
