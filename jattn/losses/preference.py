"""Losses of preference: of two answers one is better, as `(S_w, S_l)` and a frozen reference say.

S is the log-probability of a whole answer, see `jattn.losses.sequence_log_probability`. All are one
number a pair, to be averaged; with `h = (S_w - S0_w) - (S_l - S0_l)`,

    dpo     -log sigmoid(beta h)                          arXiv 2305.18290
    cdpo    -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)
    ipo     (h - 1 / (2 beta))^2                          arXiv 2310.12036
    simpo   -log sigmoid(beta (S_w / n_w - S_l / n_l) - gamma)    arXiv 2405.14734

Length-normalised forms take S / n for S, and those without a reference take 0 for S0.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Scores = Float[Array, " b"]


def margin(
    chosen: Scores,
    rejected: Scores,
    reference_chosen: Scores | float = 0.0,
    reference_rejected: Scores | float = 0.0,
) -> Scores:
    """`h`: by how much more than the reference the policy prefers the chosen answer.

    Example:
        >>> margin(jnp.array([2.0]), jnp.array([1.0]), 0.5, 0.0).tolist()
        [0.5]
    """
    return (chosen - reference_chosen) - (rejected - reference_rejected)


def dpo(h: Scores, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Scores:
    """`-(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)`.

    Args:
        h: margins, of `margin`; of scores over lengths for the length-normalised form.
        beta: strength of the pull to the reference.
        label_smoothing: e, how often labels are expected to be wrong.

    Returns:
        A loss for each pair.

    Reference:
        arXiv 2305.18290.

    Example:
        >>> round(float(dpo(jnp.zeros(1))[0]), 4)
        0.6931
    """
    right, wrong = jax.nn.log_sigmoid(beta * h), jax.nn.log_sigmoid(-beta * h)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def ipo(h: Scores, *, beta: float = 0.1) -> Scores:
    """`(h - 1 / (2 beta))^2`: a margin that is wanted, not one without end.

    Args:
        h: margins: of sums in the paper, of means over tokens in some libraries.
        beta: one over twice the margin wanted.

    Reference:
        arXiv 2310.12036.

    Example:
        >>> ipo(jnp.zeros(1)).tolist()
        [25.0]
    """
    return (h - 1 / (2 * beta)) ** 2


def simpo(
    chosen: Scores,
    rejected: Scores,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
) -> Scores:
    """`-log sigmoid(beta (chosen - rejected) - gamma)`, of means over tokens, without a reference.

    Args:
        chosen, rejected: log-probabilities over lengths.
        beta: scale of rewards.
        gamma: margin wanted of them.

    Reference:
        arXiv 2405.14734.

    Example:
        >>> round(float(simpo(jnp.zeros(1), jnp.zeros(1))[0]), 4)
        1.3133
    """
    return -jax.nn.log_sigmoid(beta * (chosen - rejected) - gamma)


def weighted_score(
    log_probabilities: Float[Array, "b t"],
    counts: Bool[Array, "b t"],
    changed: Bool[Array, "b t"],
    *,
    weight: float = 1.0,
    average: bool = False,
) -> Scores:
    """`sum_t w_t log p_t`: tokens that differ between the answers weigh more than the others.

    Args:
        log_probabilities: of an answer's tokens.
        counts: False = padding.
        changed: tokens that are not in the other answer.
        weight: w of those; the others weigh 1.
        average: divide by the sum of weights.

    Example:
        >>> logs = jnp.array([[-1.0, -2.0]])
        >>> real = jnp.array([[True, True]])
        >>> weighted_score(logs, real, jnp.array([[False, True]]), weight=3.0).tolist()
        [-7.0]
    """
    weights = jnp.where(counts, jnp.where(changed, weight, 1.0), 0.0)
    total = (weights * log_probabilities).sum(1)
    return total / jnp.maximum(weights.sum(1), 1e-12) if average else total


def per_length(score: Scores, length: Int[Array, " b"]) -> Scores:
    """S / n, for length-normalised losses.

    Example:
        >>> per_length(jnp.array([-6.0]), jnp.array([3])).tolist()
        [-2.0]
    """
    return score / length
