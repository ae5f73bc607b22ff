"""Policy gradients for sequences: advantages of groups or of agent tokens, and clipped losses.

    A = (r - mean r) / (std r + 1e-6)                    of the answers to one prompt (GRPO)
    loss_t = max(-A rho_t, -A clip(rho_t, 1 - e, 1 + e)) + kl k3_t
    rho = exp(lp - lp_old),   k3 = exp(d) - d - 1,   d = lp_ref - lp

How tokens are averaged is part of the algorithm: see `aggregate`.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count

TINY = 1e-6
Aggregation = Literal["sequence", "token", "constant"]


def group_advantages(
    rewards: Float[Array, "prompts group"], *, ddof: int = 1, scale: bool = True
) -> Float[Array, "prompts group"]:
    """Rewards less their group's mean, over its standard deviation.

    Args:
        rewards: of the answers to each prompt.
        ddof: of the standard deviation.
        scale: False leaves out the standard deviation, as Dr. GRPO does.

    Raises:
        ValueError: a group of one answer, which has no advantage over any other.

    Reference:
        arXiv 2402.03300, arXiv 2503.20783.

    Example:
        >>> group_advantages(jnp.array([[1.0, 0.0]]), scale=False).tolist()
        [[0.5, -0.5]]
    """
    check_count("ddof", ddof, 0)
    if rewards.shape[1] < 2:
        raise ValueError(f"rewards: expected groups of 2 answers or more, got {rewards.shape[1]}")
    # From the first one, so that equal rewards give exactly 0.
    rewards = rewards - rewards[:, :1]
    apart = rewards - rewards.mean(1, keepdims=True)
    return apart / (rewards.std(1, keepdims=True, ddof=ddof) + TINY) if scale else apart


class TokenLoss(NamedTuple):
    """What the clipped loss is made of, `[n, t]` each.

    Attributes:
        loss: of each token.
        ratio: rho.
        divergence: k3, an estimate of the KL divergence from the reference that is never negative.
        clipped: where the ratio is further than e on the side that the advantage pulls it to, and
            gets no gradient.
    """

    loss: Float[Array, "n t"]
    ratio: Float[Array, "n t"]
    divergence: Float[Array, "n t"]
    clipped: Bool[Array, "n t"]


def clipped_loss(
    new: Float[Array, "n t"],
    old: Float[Array, "n t"],
    advantage: Float[Array, "#n #t"],
    *,
    reference: Float[Array, "n t"] | None = None,
    clip: float = 0.2,
    kl: float = 0.0,
) -> TokenLoss:
    """The loss of each token; see the module.

    Args:
        new, old: log-probabilities under the policy now, and when the tokens were drawn.
        advantage: of tokens, or of whole rows `[n, 1]`.
        reference: log-probabilities under a frozen policy, where `kl` is not 0.
        clip: e.
        kl: weight of the divergence from the reference.

    Reference:
        arXiv 2402.03300.

    Example:
        >>> same = jnp.zeros((1, 2))
        >>> clipped_loss(same, same, jnp.ones((1, 1))).loss.tolist()
        [[-1.0, -1.0]]
    """
    old, advantage = lax.stop_gradient(old), lax.stop_gradient(advantage)
    ratio = jnp.exp(new - old)
    free, bounded = -advantage * ratio, -advantage * jnp.clip(ratio, 1 - clip, 1 + clip)
    apart = jnp.zeros_like(new) if reference is None else lax.stop_gradient(reference) - new
    divergence = jnp.exp(apart) - apart - 1
    clipped = jnp.where(advantage >= 0, ratio > 1 + clip, ratio < 1 - clip)
    return TokenLoss(jnp.maximum(free, bounded) + kl * divergence, ratio, divergence, clipped)


def aggregate(
    loss: Float[Array, "n t"], counts: Bool[Array, "n t"], how: Aggregation = "sequence"
) -> Float[Array, ""]:
    """One number for the losses of tokens.

    Args:
        loss: of each token.
        counts: those that count: an agent's, not a tool's.
        how: "sequence": mean over rows of their means (GRPO); "token": mean over all that count;
            "constant": sum over n t, whatever counts (Dr. GRPO).

    Raises:
        ValueError: another word.

    Example:
        >>> loss = jnp.array([[1.0, 1.0], [4.0, 0.0]])
        >>> counts = jnp.array([[True, True], [True, False]])
        >>> [float(aggregate(loss, counts, how)) for how in ("sequence", "token", "constant")]
        [2.5, 2.0, 1.5]
    """
    check_choice("how", how, ("sequence", "token", "constant"))
    kept = jnp.where(counts, loss, 0)
    if how == "constant":
        return kept.sum() / loss.size
    if how == "token":
        return kept.sum() / jnp.maximum(counts.sum(), 1)
    return (kept.sum(1) / jnp.maximum(counts.sum(1), 1)).mean()


class Advantages(NamedTuple):
    """Generalised advantages of agent tokens, 0 elsewhere, `[b, t]` each.

    Attributes:
        advantage: A.
        returns: A + V, what the value should have been.
        whitened: A less its mean over its standard deviation, over all agent tokens.
    """

    advantage: Float[Array, "b t"]
    returns: Float[Array, "b t"]
    whitened: Float[Array, "b t"]


def generalized_advantages(
    rewards: Float[Array, "b t"],
    values: Float[Array, "b t"],
    agent: Bool[Array, "b t"],
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
) -> Advantages:
    """Generalised advantage estimation whose time is agent tokens only.

        delta_j = r_j + gamma V_{j+1} - V_j,   A_j = delta_j + gamma lam A_{j+1}

    where j + 1 is the next token of the agent: those of tools are stepped over, and behind the last
    one everything is 0.

    Args:
        rewards, values: of each token; those that are not the agent's are not looked at.
        agent: True = the agent's.
        gamma: discount.
        lam: how far errors of values are carried back.

    Example:
        >>> rewards, agent = jnp.array([[0.0, 9.0, 1.0]]), jnp.array([[True, False, True]])
        >>> generalized_advantages(rewards, jnp.zeros((1, 3)), agent).advantage.tolist()
        [[1.0, 0.0, 1.0]]
    """

    def back(carry, now):
        after, value_after = carry
        reward, value, is_agent = now
        advantage = reward + gamma * value_after - value + gamma * lam * after
        carry = (jnp.where(is_agent, advantage, after), jnp.where(is_agent, value, value_after))
        return carry, jnp.where(is_agent, advantage, 0)

    nothing = jnp.zeros_like(values[:, 0])
    by_time = (rewards.T, values.T, agent.T)
    advantage = lax.scan(back, (nothing, nothing), by_time, reverse=True)[1].T
    returns = jnp.where(agent, advantage + values, 0)
    count = agent.sum()
    mean = advantage.sum() / jnp.maximum(count, 1)
    apart = jnp.where(agent, advantage - mean, 0)
    variance = (apart**2).sum() / jnp.maximum(count - 1, 1)
    return Advantages(advantage, returns, apart * lax.rsqrt(variance + 1e-8))


def reward_to_go(
    rewards: Float[Array, "b t"], agent: Bool[Array, "b t"], *, gamma: float = 1.0
) -> Float[Array, "b t"]:
    """Discounted sum of an agent token's reward and those of later ones; 0 elsewhere.

    Example:
        >>> reward_to_go(jnp.array([[1.0, 2.0]]), jnp.array([[True, True]]), gamma=0.5).tolist()
        [[2.0, 2.0]]
    """
    nothing = jnp.zeros_like(rewards)
    return generalized_advantages(rewards, nothing, agent, gamma=gamma, lam=1.0).advantage


def clipped_value_loss(
    new: Float[Array, "b t"],
    old: Float[Array, "b t"],
    returns: Float[Array, "b t"],
    agent: Bool[Array, "b t"],
    *,
    clip: float = 0.2,
) -> Float[Array, ""]:
    """`mean max((V - R)^2, (clip(V, V_old +- clip) - R)^2) / 2` over agent tokens.

    Args:
        new, old: values now, and when the tokens were drawn.
        returns: R, of `generalized_advantages`.
        agent: which tokens count.
        clip: how far a value moves in one update.

    Example:
        >>> one = jnp.ones((1, 1))
        >>> round(float(clipped_value_loss(2 * one, one, 2 * one, one > 0)), 3)
        0.32
    """
    near = jnp.clip(new, old - clip, old + clip)
    worse = jnp.maximum((new - returns) ** 2, (near - returns) ** 2)
    return 0.5 * jnp.where(agent, worse, 0).sum() / jnp.maximum(agent.sum(), 1)
