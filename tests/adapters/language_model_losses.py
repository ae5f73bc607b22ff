"""Adapters for losses of preference and of policies, in float64."""

import jax
import jax.numpy as jnp

from jattn.losses import policy_gradient, preference, sequence_log_probability

FAMILY = "language_model_systems"


def in_float64(adapter):
    def run(case):
        with jax.enable_x64(True):
            return jax.tree.map(lambda x: jax.device_get(x), adapter(case))

    return run


def arrays_of(case):
    return {name: jnp.asarray(value) for name, value in case.arrays.items()}


def preferences(case):
    a, info = arrays_of(case), case.info
    beta = info["beta"]
    theirs = (a["reference_chosen"], a["reference_rejected"])
    lengths = (a["length_chosen"], a["length_rejected"])
    over = lambda scores: [
        preference.per_length(s, n) for s, n in zip(scores, lengths, strict=True)
    ]

    def margins(normalised):
        def run(chosen, rejected):
            scores, references = (chosen, rejected), theirs
            if normalised:
                scores, references = over(scores), over(references)
            return preference.margin(*scores, *references)

        return run

    sums, means = margins(False), margins(True)
    losses = {
        "dpo": lambda w, l: preference.dpo(sums(w, l), beta=beta),
        "cdpo": lambda w, l: preference.dpo(
            sums(w, l), beta=beta, label_smoothing=info["label_smoothing"]
        ),
        "ipo": lambda w, l: preference.ipo(sums(w, l), beta=beta),
        "ipo_mean": lambda w, l: preference.ipo(means(w, l), beta=beta),
        "dpo_length_normalised": lambda w, l: preference.dpo(means(w, l), beta=beta),
        "simpo": lambda w, l: preference.simpo(
            *over((w, l)), beta=info["simpo_beta"], gamma=info["simpo_gamma"]
        ),
        "dpo_reference_free": lambda w, l: preference.dpo(preference.margin(w, l), beta=beta),
    }
    ours = (a["policy_chosen"], a["policy_rejected"])
    found = {
        "reward_chosen": beta * (ours[0] - theirs[0]),
        "reward_rejected": beta * (ours[1] - theirs[1]),
    }
    for name, loss in losses.items():
        if f"{name}_loss" not in a:
            continue
        found[f"{name}_loss"] = loss(*ours)
        total = lambda w, l, loss=loss: loss(w, l).sum()
        gradients = jax.grad(total, (0, 1))(*ours)
        found[f"{name}_grad_chosen"], found[f"{name}_grad_rejected"] = gradients
    return found


def groups(case):
    a, info = arrays_of(case), case.info
    rewards = a["rewards"]
    scaled = policy_gradient.group_advantages(rewards, ddof=info["ddof"])
    plain = policy_gradient.group_advantages(rewards, ddof=info["ddof"], scale=False)

    def token_loss(new, advantage):
        return policy_gradient.clipped_loss(
            new, a["old_logprob"], advantage.reshape(-1, 1), reference=a["reference_logprob"],
            clip=info["clip"], kl=info["kl_coefficient"],
        )  # fmt: skip

    parts = token_loss(a["new_logprob"], scaled)
    found = {
        "advantage": scaled, "advantage_no_std": plain, "ratio": parts.ratio,
        "k3": jnp.where(a["mask"], parts.divergence, 0), "clipped": parts.clipped & a["mask"],
    }  # fmt: skip
    words: tuple[policy_gradient.Aggregation, ...] = ("sequence", "token", "constant")
    for how in words:
        advantage = plain if how == "constant" else scaled

        def loss(new, how: policy_gradient.Aggregation = how, advantage=advantage):
            return policy_gradient.aggregate(token_loss(new, advantage).loss, a["mask"], how)

        found[f"loss_{how}"], found[f"grad_{how}"] = jax.value_and_grad(loss)(a["new_logprob"])
    return found


def advantages(case):
    a, info = arrays_of(case), case.info
    rewards, agent = a["token_reward"], a["mask"]
    found = policy_gradient.generalized_advantages(
        rewards, a["value"], agent, gamma=info["gamma"], lam=info["lam"]
    )
    return {
        **found._asdict(),
        "reward_to_go": policy_gradient.reward_to_go(rewards, agent, gamma=info["gamma"]),
        "value_loss": policy_gradient.clipped_value_loss(
            a["new_value"], a["value"], found.returns, agent, clip=info["value_clip"]
        ),
    }


def log_probability(case):
    a = arrays_of(case)
    run = lambda logits: sequence_log_probability(
        logits, a["tokens"], a["mask"], temperature=case.info["temperature"]
    )
    found = run(a["logits"])
    return {
        "per_token": found.per_token, "sequence_sum": found.total, "sequence_mean": found.mean,
        "entropy": found.entropy,
        "grad_logits": jax.grad(lambda logits: run(logits).total.sum())(a["logits"]),
    }  # fmt: skip


def token_weighted(case):
    a, info = arrays_of(case), case.info

    def scores(who, which, logs=None):
        logs = a[f"{who}_{which}"] if logs is None else logs
        return preference.weighted_score(
            logs, a[f"mask_{which}"], a[f"changed_{which}"], weight=info["token_weight"],
            average=info["average"],
        )  # fmt: skip

    def margins(chosen, rejected):
        return preference.margin(
            scores("policy", "chosen", chosen), scores("policy", "rejected", rejected),
            scores("reference", "chosen"), scores("reference", "rejected"),
        )  # fmt: skip

    def loss(chosen, rejected):
        mean = scores("policy", "chosen", chosen).mean()
        h = margins(chosen, rejected)
        return preference.dpo(h, beta=info["beta"]).mean() - info["sft_weight"] * mean

    ours = a["policy_chosen"], a["policy_rejected"]
    value, gradients = jax.value_and_grad(loss, (0, 1))(*ours)
    h = margins(*ours)
    return {
        "margin": h, "loss": value, "accuracy": (h > 0).mean(),
        "grad_policy_chosen": gradients[0], "grad_policy_rejected": gradients[1],
    }  # fmt: skip


ADAPTERS = {
    (FAMILY, "apasi_token_weighted_dpo"): in_float64(token_weighted),
    (FAMILY, "gae_agent_tokens"): in_float64(advantages),
    (FAMILY, "grpo_loss"): in_float64(groups),
    (FAMILY, "preference_losses"): in_float64(preferences),
    (FAMILY, "sequence_log_probability"): in_float64(log_probability),
}
