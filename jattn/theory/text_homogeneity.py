"""How alike documents are: overlaps of n-grams, distances of counts, diversity of groups.

Documents are sequences of hashable tokens, words or numbers. N-grams never cross documents. Compare
documents of equal length only: overlaps and shares of distinct n-grams change with it.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int

from jattn.checks import check_count

Document = Sequence[Hashable]


def ngrams(document: Document, n: int) -> Counter[tuple[Hashable, ...]]:
    """How often each n-gram stands in a document.

    Example:
        >>> ngrams("abab", 2)
        Counter({('a', 'b'): 2, ('b', 'a'): 1})
    """
    check_count("n", n)
    return Counter(tuple(document[i : i + n]) for i in range(len(document) - n + 1))


def jaccard(documents: Sequence[Document], n: int) -> Float[np.ndarray, "k k"]:
    """`|A & B| / |A | B|` of the sets of n-grams of each pair; 1 where both are empty.

    Raises:
        ValueError: no documents.

    Example:
        >>> jaccard(["abc", "abd"], 2).round(3).tolist()
        [[1.0, 0.333], [0.333, 1.0]]
    """
    _check(documents)
    sets = [set(ngrams(document, n)) for document in documents]
    return _pairwise(sets, lambda a, b: len(a & b) / len(a | b) if a | b else 1.0)


def cosine_distance(documents: Sequence[Document], n: int) -> Float[np.ndarray, "k k"]:
    """`1 - cosine` of the counts of n-grams of each pair.

    Example:
        >>> cosine_distance(["aa", "b"], 1).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    counts = _counts(documents, n)
    size = np.linalg.norm(counts, axis=1)
    scale = np.where(size > 0, size, 1.0)
    return 1 - (counts @ counts.T) / (scale[:, None] * scale)


def jensen_shannon(documents: Sequence[Document], n: int = 1) -> Float[np.ndarray, "k k"]:
    """Jensen-Shannon divergence, in bits, of the frequencies of n-grams of each pair; not its root.

    Raises:
        ValueError: a document without n-grams.

    Example:
        >>> jensen_shannon(["aa", "b"]).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    counts = _counts(documents, n)
    if not counts.sum(1).all():
        short = int(np.argmin(counts.sum(1)))
        raise ValueError(f"documents: expected {n} tokens or more each, got fewer in {short}")
    share = counts / counts.sum(1, keepdims=True)

    def entropy(p):
        return -np.sum(p * np.log2(np.where(p > 0, p, 1.0)), axis=-1)

    middle = entropy((share[:, None] + share) / 2)
    own = entropy(share)
    return middle - (own[:, None] + own) / 2


def distinct(documents: Sequence[Document], n: int) -> float:
    """Different n-grams over n-grams, of all documents together.

    Example:
        >>> distinct(["ab", "ab"], 1)
        0.5
    """
    _check(documents)
    total = sum((ngrams(document, n) for document in documents), Counter())
    if not total:
        raise ValueError(f"documents: expected {n} tokens or more in one at least, got none")
    return len(total) / total.total()


def vendi(similarity: Float[np.ndarray, "k k"]) -> float:
    """Effective number of different items: exp of the entropy of the eigenvalues of K / k.

    Args:
        similarity: K, positive semidefinite with ones on the diagonal.

    Reference:
        arXiv 2210.02410.

    Example:
        >>> round(vendi(np.ones((3, 3))), 6), round(vendi(np.eye(3)), 6)
        (1.0, 3.0)
    """
    values = np.linalg.eigvalsh(np.asarray(similarity, np.float64) / len(similarity))
    values = values[values > 1e-15]
    return float(math.exp(-(values * np.log(values)).sum()))


def within_group(
    matrix: Float[np.ndarray, "k k"], groups: Int[np.ndarray, " k"]
) -> Float[np.ndarray, " g"]:
    """Mean over pairs of each group, in the order of their numbers.

    Example:
        >>> within_group(np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([0, 0])).tolist()
        [2.0]
    """
    groups = np.asarray(groups)
    upper = np.triu(np.ones(matrix.shape, bool), 1)
    same = [upper & (groups[:, None] == g) & (groups == g) for g in np.unique(groups)]
    if any(not pairs.any() for pairs in same):
        raise ValueError("groups: expected two documents or more in each, got one")
    return np.array([matrix[pairs].mean() for pairs in same])


def homogeneity_statistic(
    distance: Float[np.ndarray, "k k"], groups: Int[np.ndarray, " k"]
) -> float:
    """Mean distance within groups less that between them, over pairs: low where groups differ.

    Example:
        >>> distance = 1.0 - np.eye(4)
        >>> distance[0, 1] = distance[1, 0] = distance[2, 3] = distance[3, 2] = 0.25
        >>> homogeneity_statistic(distance, np.array([0, 0, 1, 1]))
        -0.75
    """
    groups = np.asarray(groups)
    rows, columns = np.triu_indices(len(groups), 1)
    same = groups[rows] == groups[columns]
    if same.all() or not same.any():
        raise ValueError("groups: expected pairs within groups and between them, got one kind only")
    values = np.asarray(distance)[rows, columns]
    return float(values[same].mean() - values[~same].mean())


def homogeneity_test(
    distance: Float[np.ndarray, "k k"],
    groups: Int[np.ndarray, " k"],
    permutations: Int[np.ndarray, "b k"],
) -> tuple[float, Float[np.ndarray, " b"], float]:
    """The statistic, its values under permuted groups, and `p`, small where groups differ.

    Args:
        distance: of each pair of documents.
        groups: of each document.
        permutations: of documents; see `jattn.theory.group_tests.draw_permutations`.

    Example:
        >>> distance = 1.0 - np.eye(4)
        >>> _, null, p = homogeneity_test(distance, np.array([0, 0, 1, 1]), np.array([[0, 2, 1, 3]]))
        >>> null.tolist(), p
        ([0.0], 1.0)
    """  # noqa: E501
    groups = np.asarray(groups)
    statistic = homogeneity_statistic(distance, groups)
    shuffled = groups[np.asarray(permutations)]
    null = np.array([homogeneity_statistic(distance, one) for one in shuffled])
    p_value = (1 + (null <= statistic + 1e-12).sum()) / (len(null) + 1)
    return statistic, null, float(p_value)


def pointwise_mutual_information(
    documents: Sequence[Document],
) -> dict[tuple[Hashable, Hashable], float]:
    """`log2(c(ab) N / (c(a) c(b)))` of each bigram that occurs, with N the number of tokens.

    Example:
        >>> pointwise_mutual_information(["ab", "cc"])[("a", "b")]
        2.0
    """
    _check(documents)
    one = sum((ngrams(document, 1) for document in documents), Counter())
    two = sum((ngrams(document, 2) for document in documents), Counter())
    total = one.total()
    return {
        (a, b): math.log2(count * total / (one[(a,)] * one[(b,)])) for (a, b), count in two.items()
    }


def _check(documents: Sequence[Document]) -> None:
    if not len(documents):
        raise ValueError("documents: expected at least one, got none")


def _counts(documents: Sequence[Document], n: int) -> np.ndarray:
    _check(documents)
    bags = [ngrams(document, n) for document in documents]
    columns = {gram: i for i, gram in enumerate(dict.fromkeys(g for bag in bags for g in bag))}
    counts = np.zeros((len(bags), len(columns)))
    for row, bag in enumerate(bags):
        for gram, count in bag.items():
            counts[row, columns[gram]] = count
    return counts


def _pairwise(items, measure) -> np.ndarray:
    found = np.empty((len(items), len(items)))
    for i, a in enumerate(items):
        for j, b in enumerate(items[: i + 1]):
            found[i, j] = found[j, i] = measure(a, b)
    return found
