"""Self-specialisation: a pool of instructions that the model wrote itself, kept while they differ.

Candidates are visited in order; one joins the pool where its largest ROUGE-L with all that are in
it is below a threshold.
"""

import numpy as np
from jaxtyping import Float, Int

from jattn.checks import check_count, check_number, check_shape

PAD = -1


def rouge_l(
    first: Int[np.ndarray, "n t"], second: Int[np.ndarray, "k s"]
) -> Float[np.ndarray, "n k"]:
    """ROUGE-L's F measure of each pair: `2 LCS / (length + length)`, 1 iff they are equal.

    LCS is the length of the longest common subsequence, which may have gaps.

    Args:
        first, second: tokens, padded behind with -1.

    Reference:
        Lin 2004, "ROUGE: a package for automatic evaluation of summaries".

    Example:
        >>> rouge_l(np.array([[1, 2, 3]]), np.array([[1, 3, -1], [4, 4, 4]])).tolist()
        [[0.8, 0.0]]
    """
    a, b = np.asarray(first)[:, None], np.asarray(second)[None]
    n, k = a.shape[0], b.shape[1]
    longest = np.zeros((n, k, b.shape[2] + 1), int)  # of a's tokens so far, and b's first j
    for i in range(a.shape[2]):
        same = (a[..., i, None] == b) & (b != PAD)
        row = np.zeros_like(longest)
        for j in range(b.shape[2]):
            grown = np.where(same[..., j], longest[..., j] + 1, 0)
            row[..., j + 1] = np.maximum(grown, np.maximum(row[..., j], longest[..., j + 1]))
        longest = row
    return _over_lengths(2.0 * longest[..., -1], first, second)


def token_f1(
    first: Int[np.ndarray, "n t"], second: Int[np.ndarray, "k s"]
) -> Float[np.ndarray, "n k"]:
    """F1 of the bags of tokens of each pair.

    Args:
        first, second: tokens, padded behind with -1.

    Example:
        >>> token_f1(np.array([[1, 1, 2]]), np.array([[1, 3, -1]])).tolist()
        [[0.4]]
    """
    size = max(int(np.max(first, initial=0)), int(np.max(second, initial=0))) + 1
    bag = lambda rows: np.stack([np.bincount(row[row != PAD], minlength=size) for row in rows])
    shared = np.minimum(bag(np.asarray(first))[:, None], bag(np.asarray(second))[None]).sum(-1)
    return _over_lengths(2.0 * shared, first, second)


def keep_different(
    sequences: Int[np.ndarray, "n t"], seeds: int, threshold: float = 0.7
) -> Int[np.ndarray, " kept"]:
    """Indices of candidates that join the pool; see the module.

    Args:
        sequences: the seeds, which are in the pool from the start, and the candidates behind them;
            padded behind with -1.
        seeds: how many seeds there are.
        threshold: the ROUGE-L at which a candidate is too much like another.

    Raises:
        ValueError: an empty pool, or options out of range.

    Reference:
        arXiv 2310.00160; the filter is that of arXiv 2212.10560.

    Example:
        >>> keep_different(np.array([[1, 2, 3], [1, 2, 3], [4, 5, 6]]), 1).tolist()
        [2]
    """
    check_shape("sequences", sequences, "n t", {})
    check_count("seeds", seeds)
    check_number("threshold", threshold, above=0)
    if len(sequences) < seeds:
        raise ValueError(f"sequences: expected at least seeds={seeds}, got {len(sequences)}")
    likeness = rouge_l(sequences, sequences)
    pool = list(range(seeds))
    for index in range(seeds, len(sequences)):
        if likeness[index, pool].max() < threshold:
            pool.append(index)
    return np.array(pool[seeds:], int)


def _over_lengths(twice: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    length = lambda rows: (np.asarray(rows) != PAD).sum(1)
    return twice / np.maximum(length(first)[:, None] + length(second), 1)
