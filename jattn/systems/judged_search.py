"""Judged search: every observation of a search is judged before the agent goes on.

    r_t = +0.3 where the judgement is the ideal one, -0.6 for a wrong yes, -0.3 for a wrong no
    R = sum_t gamma^(t-1) r_t + gamma^T exact match

The sum can be farmed: four right judgements of junk pay more than the answer. With `"mean"` they
pay 0.3 at most, however many there are.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_choice, check_number, check_shape

YES, NO, NONE = 1, 0, -1
PROMPT, AGENT, OBSERVATION = 0, 1, 2
# What the released rerank-based scoring gives, as shares of its bonus and its penalty.
RIGHT_NO, USEFUL_WRONG = 0.2, 0.5


def judge_rewards(
    judge: Int[Array, "n turns"],
    utility: Float[Array, "n turns"],
    *,
    threshold: float = 0.7,
    match: float = 0.3,
    accept_wrong: float = 0.6,
    reject_right: float = 0.3,
) -> Float[Array, "n turns"]:
    """The reward of each judgement; 0 where there is none.

    Args:
        judge: 1 yes, 0 no, -1 none.
        utility: of what was judged; the ideal judgement is yes above the threshold.
        threshold: tau.
        match: for the ideal judgement.
        accept_wrong: taken off for a yes that should be a no.
        reject_right: taken off for a no that should be a yes.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2510.00568.

    Example:
        >>> judge_rewards(jnp.array([[1, 1, 0]]), jnp.array([[0.9, 0.1, 0.9]])).round(1).tolist()
        [[0.30000001192092896, -0.6000000238418579, -0.30000001192092896]]
    """
    sizes: dict[str, int] = {}
    check_shape("judge", judge, "n turns", sizes)
    check_shape("utility", utility, "n turns", sizes)
    ideal = utility > threshold
    wrong = jnp.where(judge == YES, -accept_wrong, -reject_right)
    found = jnp.where((judge == YES) == ideal, match, wrong)
    return jnp.where(judge == NONE, 0.0, found)


def trajectory_reward(
    step: Float[Array, "n turns"],
    exact_match: Int[Array, " n"],
    turns: Int[Array, " n"],
    judged: Bool[Array, "n turns"],
    *,
    how: Literal["sum", "mean"] = "sum",
    gamma: float = 1.0,
) -> Float[Array, " n"]:
    """The reward of whole trajectories.

    Args:
        step: of each judgement, of `judge_rewards`.
        exact_match: 1 where the answer is right.
        turns: how many there were.
        judged: which turns have a judgement.
        how: "sum", as the paper; or "mean" over judgements, which cannot be farmed.
        gamma: discount of later turns, for the sum.

    Example:
        >>> step, judged = jnp.full((1, 4), 0.3), jnp.ones((1, 4), bool)
        >>> one = jnp.zeros(1, int)
        >>> [round(float(trajectory_reward(step, one, one + 4, judged, how=how)[0]), 3)
        ...  for how in ("sum", "mean")]
        [1.2, 0.3]
    """
    check_choice("how", how, ("sum", "mean"))
    check_number("gamma", gamma, least=0)
    if how == "mean":
        return exact_match + step.sum(1) / jnp.maximum(judged.sum(1), 1)
    discount = gamma ** jnp.arange(step.shape[1]).astype(step.dtype)
    return (step * discount).sum(1) + gamma ** turns.astype(step.dtype) * exact_match


class Scored(NamedTuple):
    """Rewards as released code gives them.

    Attributes:
        step: of each judgement, `[n, turns]`.
        total: one number a trajectory, with the answer's.
    """

    step: Float[Array, "n turns"]
    total: Float[Array, " n"]


def released_regex(
    judge: Int[Array, "n turns"],
    utility: Float[Array, "n turns"],
    exact_match: Int[Array, " n"],
    has_answer: Bool[Array, " n"],
    *,
    boost: float = 0.1,
    **options: float,
) -> Scored:
    """The scoring of the authors' code that looks for the answer in what was found.

    A yes counts as right wherever the final answer is; then each right judgement gets `boost` more.
    Without an answer everything is 0.

    Args:
        judge, utility: as for `judge_rewards`, whose other arguments are `options`.
        exact_match: 1 where the answer is right.
        has_answer: whether there is one.
        boost: see above.

    Example:
        >>> one = jnp.ones((1, 1))
        >>> found = released_regex(one.astype(int), 0 * one, jnp.array([1]), jnp.array([True]))
        >>> round(float(found.total[0]), 3)
        1.4
    """
    success = exact_match[:, None] > 0
    match = options.get("match", 0.3)
    step = judge_rewards(judge, utility, **options)
    step = jnp.where((judge == YES) & success, match, step)
    ideal = utility > options.get("threshold", 0.7)
    right = ((judge == YES) & (ideal | success)) | ((judge == NO) & ~ideal)
    step = step + jnp.where(right & success, boost, 0.0)
    return _answered(step, exact_match, has_answer)


def released_rerank(
    judge: Int[Array, "n turns"],
    utility: Float[Array, "n turns"],
    exact_match: Int[Array, " n"],
    has_answer: Bool[Array, " n"],
    *,
    bonus: float = 0.1,
    penalty: float = 0.05,
    threshold: float = 0.5,
) -> Scored:
    """The scoring of the authors' code by a reranker: useful is `utility >= threshold`.

    A yes with a right final answer gets the bonus, a right no a fifth of it; a yes to something
    useful with a wrong answer half of the penalty, whatever else is wrong all of it.

    Example:
        >>> one = jnp.ones((1, 1))
        >>> found = released_rerank(0 * one.astype(int), 0 * one, jnp.array([1]), jnp.array([True]))
        >>> round(float(found.total[0]), 3)
        1.02
    """
    success, useful = exact_match[:, None] > 0, utility >= threshold
    yes = jnp.where(success, bonus, jnp.where(useful, -USEFUL_WRONG * penalty, -penalty))
    no = jnp.where(useful, -penalty, RIGHT_NO * bonus)
    step = jnp.where(judge == YES, yes, jnp.where(judge == NO, no, 0.0))
    return _answered(step, exact_match, has_answer)


def _answered(step, exact_match, has_answer) -> Scored:
    step = jnp.where(has_answer[:, None], step, 0.0)
    return Scored(step, jnp.where(has_answer, step.sum(1) + exact_match, 0.0))


class ContextMasks(NamedTuple):
    """What a trajectory's tokens may attend to, and which of them are trained on.

    Attributes:
        soft: causal; a rejected observation stays in sight, `[t, t]`.
        hard: tokens behind the judgement of a rejected observation do not see it, `[t, t]`.
        loss: tokens of the agent, `[t]`.
    """

    soft: Bool[Array, "t t"]
    hard: Bool[Array, "t t"]
    loss: Bool[Array, " t"]


def context_masks(
    kind: Int[Array, " t"],
    observation: Int[Array, " t"],
    judge: Int[Array, " o"],
    judge_end: Int[Array, " o"],
) -> ContextMasks:
    """Masks of a trajectory in which observations were judged.

    Hiding an observation does not delete it: the judgement's keys and values have read it from the
    second layer on.

    Args:
        kind: of each token: 0 prompt, 1 agent, 2 observation.
        observation: which one a token belongs to; -1 = none.
        judge: of each observation, 1 yes, 0 no, -1 none.
        judge_end: index of the last token of each judgement.

    Example:
        >>> found = context_masks(jnp.array([0, 2, 1, 1]), jnp.array([-1, 0, -1, -1]),
        ...                       jnp.array([0]), jnp.array([2]))
        >>> found.hard.astype(int).tolist()[2:]
        [[1, 1, 1, 0], [1, 0, 1, 1]]
    """
    sizes: dict[str, int] = {}
    check_shape("kind", kind, "t", sizes)
    check_shape("observation", observation, "t", sizes)
    check_shape("judge", judge, "o", sizes)
    check_shape("judge_end", judge_end, "o", sizes)
    place = jnp.arange(sizes["t"])
    soft = place[:, None] >= place
    if not sizes["o"]:
        return ContextMasks(soft, soft, kind == AGENT)
    of = jnp.clip(observation, 0)
    rejected = (observation >= 0) & (judge[of] == NO)
    hidden = rejected & (place[:, None] > judge_end[of])
    return ContextMasks(soft, soft & ~hidden, kind == AGENT)
