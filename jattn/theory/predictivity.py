"""How much of noisy responses features explain, by a ridge map, corrected for what noise leaves.

Three maps M, M1, M2 are fitted to the mean response of all trials and of two halves of them. On
conditions that none of them saw,

    score = corr(M x, y) / sqrt(SB(corr(M1 x, M2 x)) SB(corr(y1, y2))),     SB(r) = 2 r / (1 + r)

With signal variance S and noise variance v of the mean of all trials (2 v of a half),
`SB(S / (S + 2 v)) = S / (S + v)`: true features score 1 whatever the noise. Features that have no
noise do not remove the first factor: M1 and M2 differ through the responses they were fitted to.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jattn.checks import check_number, check_shape


class Predictivity(NamedTuple):
    """Correlations of each half split, train and test split, and unit, `[halves, splits, u]`.

    Attributes:
        raw: of the full map's prediction with the full mean.
        maps: of the predictions of the two half maps.
        responses: of the two half means.
        denominator: the noise ceiling; NaN where a corrected reliability is negative.
        corrected: raw / denominator.
        per_unit: corrected, its mean over splits, `[u]`.
        median: over units that are not NaN.
        standard_error: of the mean over those units.
        dropped: how many units are NaN: silent, or without a reliable response.
    """

    raw: Float[Array, "halves splits u"]
    maps: Float[Array, "halves splits u"]
    responses: Float[Array, "halves splits u"]
    denominator: Float[Array, "halves splits u"]
    corrected: Float[Array, "halves splits u"]
    per_unit: Float[Array, " u"]
    median: Float[Array, ""]
    standard_error: Float[Array, ""]
    dropped: Int[Array, ""]


def ridge(
    features: Float[Array, "s m"], targets: Float[Array, "s u"], alpha: Float[Array, ""] | float
) -> tuple[Float[Array, "m u"], Float[Array, " u"]]:
    """Weights and intercepts that minimise `|y - x w - b|^2 + alpha |w|^2`.

    The same as scikit-learn's `Ridge`, but in JAX: it can be mapped over splits and penalties.

    Example:
        >>> w, b = ridge(jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [5.0]]), 0.0)
        >>> w.tolist(), b.tolist()
        ([[2.0]], [1.0])
    """
    centre, level = features.mean(0), targets.mean(0)
    x, y = features - centre, targets - level
    gram = x.T @ x + alpha * jnp.eye(x.shape[1])
    weights = jnp.linalg.solve(gram, x.T @ y)
    return weights, level - centre @ weights


def correlation(a: Float[Array, "s u"], b: Float[Array, "s u"]) -> Float[Array, " u"]:
    """Pearson's, of each column; NaN where one is constant.

    Example:
        >>> correlation(jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [1.0]])).tolist()
        [-1.0]
    """
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / jnp.sqrt((a**2).sum(0) * (b**2).sum(0))


def spearman_brown(r: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Reliability of the whole from that of its halves, `2 r / (1 + r)`.

    Example:
        >>> spearman_brown(jnp.array(0.5)).item()
        0.6666666865348816
    """
    return 2 * r / (1 + r)


def predictivity(
    features: Float[Array, "s m"],
    responses: Float[Array, "trials s u"],
    train: Int[Array, "splits a"],
    test: Int[Array, "splits b"],
    half1: Int[Array, "halves c"],
    half2: Int[Array, "halves d"],
    *,
    alpha: Float[Array, ""] | float = 1.0,
) -> Predictivity:
    """The score of features for each unit; see the module.

    Args:
        features: of each condition, or of each of its moments.
        responses: of each trial.
        train, test: rows; split by condition, so that all its moments go together.
        half1, half2: trials.
        alpha: penalty of the maps.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2305.11772.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (40, 3))
        >>> y = x + 0.5 * jax.random.normal(jax.random.key(1), (10, 40, 3))
        >>> rows, trials = jnp.arange(40)[None], jnp.arange(10)[None]
        >>> found = predictivity(x, y, rows[:, :20], rows[:, 20:], trials[:, :5], trials[:, 5:])
        >>> bool(abs(found.median - 1) < 0.1)
        True
    """
    sizes: dict[str, int] = {}
    check_shape("features", features, "s m", sizes)
    check_shape("responses", responses, "trials s u", sizes)
    check_number("alpha", alpha, least=0)
    full = responses.mean(0)

    def one(rows, tests, first, second):
        means = jnp.stack([full, responses[first].mean(0), responses[second].mean(0)])

        def mapped(mean):
            weights, intercept = ridge(features[rows], mean[rows], alpha)
            return features[tests] @ weights + intercept

        whole, one, two = jax.vmap(mapped)(means)
        return (
            correlation(whole, full[tests]),
            correlation(one, two),
            correlation(means[1][tests], means[2][tests]),
        )

    over_splits = jax.vmap(one, (0, 0, None, None))
    raw, maps, noise = jax.vmap(over_splits, (None, None, 0, 0))(train, test, half1, half2)
    product = spearman_brown(maps) * spearman_brown(noise)
    real = (maps > -1) & (noise > 0) & (product > 0)
    denominator = jnp.where(real, jnp.sqrt(jnp.where(real, product, 1.0)), jnp.nan)
    corrected = raw / denominator
    per_unit = corrected.mean((0, 1))
    count = jnp.isfinite(per_unit).sum()
    return Predictivity(
        raw, maps, noise, denominator, corrected, per_unit, jnp.nanmedian(per_unit),
        jnp.nanstd(per_unit, ddof=1) / jnp.sqrt(count), per_unit.size - count,
    )  # fmt: skip


class Behaviour(NamedTuple):
    """Agreement of a model's probabilities with people's, of each scenario and in all.

    Attributes:
        correlation: Pearson's, over the items of each scenario.
        accuracy: share of items where `p >= 0.5` is what happened.
        weighted_correlation, weighted_accuracy: means weighted with the numbers of items.
    """

    correlation: Float[np.ndarray, " scenarios"]
    accuracy: Float[np.ndarray, " scenarios"]
    weighted_correlation: float
    weighted_accuracy: float


def behaviour_score(
    scenario: Int[Array, " n"],
    model: Float[Array, " n"],
    people: Float[Array, " n"],
    happened: Int[Array, " n"],
) -> Behaviour:
    """How far a model's probabilities of an event agree with people's, by scenario.

    Args:
        scenario: of each item.
        model, people: probabilities that the event happens.
        happened: 1 where it did.

    Example:
        >>> p = jnp.array([0.1, 0.9, 0.4])
        >>> found = behaviour_score(jnp.zeros(3, int), p, 1 - p, jnp.array([0, 1, 1]))
        >>> round(found.weighted_correlation, 3), round(found.weighted_accuracy, 3)
        (-1.0, 0.667)
    """
    place, p, q, truth = (np.asarray(x) for x in (scenario, model, people, happened))
    groups = [place == g for g in np.unique(place)]
    correlations = np.array([np.corrcoef(p[g], q[g])[0, 1] for g in groups])
    right = (p >= 0.5) == (truth > 0)
    accuracies = np.array([right[g].mean() for g in groups])
    weights = np.array([g.sum() for g in groups])
    mean = lambda values: float(np.average(values, weights=weights))
    return Behaviour(correlations, accuracies, mean(correlations), mean(accuracies))
