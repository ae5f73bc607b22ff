"""Adapters for systems around language models, in float64."""

import jax.numpy as jnp
import numpy as np

from jattn.losses import policy_gradient
from jattn.losses.contrastive_slots import contrastive_slots
from jattn.systems import (
    agnosia,
    attention_states,
    injection,
    judged_search,
    latent_dynamics,
    self_contradiction,
    self_specialization,
)
from jattn.tasks import bm25, pong, scene_items
from jattn.theory import (
    autoregression,
    directed_connectivity,
    group_tests,
    predictivity,
    semi_markov,
    text_homogeneity,
)
from tests.adapters.language_model_losses import FAMILY, arrays_of, in_float64


def hyper_of(case):
    """Options, which some cases hold in a group of their own and others beside everything else."""
    groups = [case.info.get(name) for name in ("options", "hyper")]
    return {
        **case.info,
        **{name: value for g in groups if isinstance(g, dict) for name, value in g.items()},
    }


def connectivity(case):
    a = arrays_of(case)
    A, sigma, f = a["coefficients"], a["noise_covariance"], a["frequencies"]
    found = directed_connectivity.spectral(A, sigma, f)
    ddtf = directed_connectivity.direct_dtf(found)
    direct = directed_connectivity.direct_links(A)
    return {
        "a_bar": found.coefficients, "transfer": found.transfer,
        "cross_spectrum": found.cross_spectrum, "inverse_spectrum": found.inverse_spectrum,
        "dtf2": directed_connectivity.dtf(found.transfer),
        "gdtf2": directed_connectivity.dtf(found.transfer, sigma),
        "pdc2": directed_connectivity.pdc(found.coefficients),
        "gpdc2": directed_connectivity.pdc(found.coefficients, sigma),
        "coh2": directed_connectivity.coherence(found.cross_spectrum),
        "pcoh2": directed_connectivity.coherence(found.inverse_spectrum),
        "ffdtf2": directed_connectivity.full_frequency_dtf(found.transfer),
        "ddtf": ddtf,
        "ddtf_band_mean": directed_connectivity.band_means(ddtf, f, a["band_edges"]),
        "covariance": autoregression.stationary_covariance(A, sigma),
        "direct": direct, "path": directed_connectivity.paths(direct),
    }  # fmt: skip


def mvar(case):
    a, options = arrays_of(case), hyper_of(case)
    order, channels = options["order"], a["x"].shape[1]
    fit = autoregression.fit_autoregression(a["x"], order)
    tests = autoregression.granger(a["x"], order)
    q = group_tests.false_discovery_q(tests.p_value, ~np.eye(channels, dtype=bool))
    return {
        "coefficients": fit.coefficients, "residual_covariance": fit.covariance,
        "residual_covariance_ml": fit.covariance_ml, "f_statistic": tests.statistic,
        "p_value": tests.p_value, "q_value": q, "significant": q <= options["alpha"],
        "criteria": autoregression.order_criteria(a["x"], options["max_order"]),
    }  # fmt: skip


def permutation_fdr(case):
    a, options = arrays_of(case), hyper_of(case)
    statistic = jnp.abs(group_tests.group_difference(a["x"], a["label"]))
    null = group_tests.permuted_differences(a["x"], a["label"], a["permutations"])
    p = group_tests.permutation_p_values(statistic, null)
    q = group_tests.false_discovery_q(p)
    return {
        "statistic": statistic, "null": null, "p_value": p, "q_value": q,
        "significant": q <= options["alpha"],
        "p_value_max": group_tests.permutation_p_values(statistic, null, family_wise=True),
        "interval": group_tests.bootstrap_interval(a["x"], a["label"], a["bootstrap_indices"]),
    }  # fmt: skip


def predict(case):
    a = arrays_of(case)
    splits = [a[name] for name in ("train", "test", "half1", "half2")]
    alpha = hyper_of(case)["alpha"]
    found = predictivity.predictivity(a["features"], a["responses"], *splits, alpha=alpha)
    behaviour = predictivity.behaviour_score(
        a["scenario"], a["model_probability"], a["human_probability"], a["contact"]
    )
    return {
        "r_xy": found.raw, "r_xx": found.maps, "r_yy": found.responses,
        "r_xx_sb": predictivity.spearman_brown(found.maps),
        "r_yy_sb": predictivity.spearman_brown(found.responses),
        "denominator": found.denominator, "corrected": found.corrected,
        "per_unit": found.per_unit, "median": found.median, "sem": found.standard_error,
        "scenario_correlation": behaviour.correlation, "scenario_accuracy": behaviour.accuracy,
        "weighted_correlation": behaviour.weighted_correlation,
        "weighted_accuracy": behaviour.weighted_accuracy,
    }  # fmt: skip


def semi_markov_filter(case):
    a, options = arrays_of(case), hyper_of(case)
    means = jnp.asarray(options["means"], float)
    duration = semi_markov.negative_binomial_durations(
        means, options["shape"], options["max_duration"]
    )
    likelihood = semi_markov.count_log_likelihood(
        a["counts"], a["idle"], a["rates"], a["idle_beta"]
    )
    found = semi_markov.semi_markov_filter(a["initial"], a["transition"], duration, likelihood)
    occupancy = semi_markov.occupancy(a["transition"], duration)
    return {
        "duration": duration, "mean_duration": semi_markov.mean_durations(duration),
        "embedded_stationary": semi_markov.embedded_stationary(a["transition"]),
        "occupancy": occupancy, "log_likelihood": likelihood, "posterior": found.posterior,
        "total_log_likelihood": found.log_likelihood,
        "memoryless": semi_markov.memoryless_posterior(jnp.asarray(occupancy), likelihood),
    }  # fmt: skip


def homogeneity(case):
    documents = [row[row >= 0].tolist() for row in case.arrays["documents"]]
    group, found = case.arrays["group"], {}
    measures = (
        ("jaccard", text_homogeneity.jaccard),
        ("cosine_distance", text_homogeneity.cosine_distance),
        ("js_bits", text_homogeneity.jensen_shannon),
    )  # fmt: skip
    for name, measure in measures:
        for n in range(1, 10):
            if f"{name}{n}" in case.arrays:
                found[f"{name}{n}"] = measure(documents, n)
    groups = [[documents[i] for i in np.flatnonzero(group == g)] for g in np.unique(group)]
    lengths = range(1, 1 + case.arrays["distinct"].shape[1])
    overlap = text_homogeneity.jaccard(documents, 2)
    statistic, null, p = text_homogeneity.homogeneity_test(
        1 - overlap, group, case.arrays["permutations"]
    )
    tokens = range(len(case.arrays["pmi"]))
    bags = [text_homogeneity.ngrams(document, 2) for document in documents]
    count = [[sum(bag[(a, b)] for bag in bags) for b in tokens] for a in tokens]
    information = text_homogeneity.pointwise_mutual_information(documents)
    pmi = [[information.get((a, b), 0.0) for b in tokens] for a in tokens]
    likeness = [1 - text_homogeneity.cosine_distance(g, 1) for g in groups]
    return found | {
        "distinct": [[text_homogeneity.distinct(g, n) for n in lengths] for g in groups],
        "vendi": [text_homogeneity.vendi(matrix) for matrix in likeness],
        "within_jaccard2": text_homogeneity.within_group(overlap, group),
        "bigram_count": count, "pmi": pmi, "statistic": statistic, "null": null, "p_value": p,
    }  # fmt: skip


def agnosia_rates(case):
    a, options = arrays_of(case), hyper_of(case)
    of_aspect = jnp.asarray(options["options"])
    guess = agnosia.predictions(a["scores"], a["n_options"])
    found = agnosia.agnosia_rates(a["aspect"], guess == a["answer"], of_aspect)
    blind_guess = agnosia.predictions(a["blind_scores"], a["n_options"])
    blind = agnosia.agnosia_rates(a["aspect"], blind_guess == a["answer"], of_aspect)
    rotated = agnosia.circular(a["rotated_scores"], a["rotated_answer0"])
    return {
        **found._asdict(), "prediction": guess, "raw_error": 1 - found.accuracy,
        "agnosia_clipped": np.clip(found.agnosia, 0, 1), "blind_accuracy": blind.accuracy,
        "image_gain": found.accuracy - blind.accuracy, "rotated_correct": rotated,
        "circular_accuracy": rotated.all(1).mean(), "plain_accuracy": rotated.mean(),
    }  # fmt: skip


def attention_policy(case):
    a, options, found = arrays_of(case), hyper_of(case), {}
    for number, (on, off, dwell, protect) in enumerate(options["options"]):
        states = attention_states.hysteresis(
            a["beliefs"], a["breakpoint"], on=on, off=off, dwell=dwell, protect=protect
        )
        found[f"state{number}"] = states
        found[f"pattern{number}"] = attention_states.patterns(states, a["arousal"])
    agreed = attention_states.agreement(a["wizard"], found["state0"], a["beliefs"].shape[1])
    return found | {
        "argmax": a["beliefs"].argmax(1), "confusion": agreed.confusion,
        "agreement": agreed.observed, "expected_agreement": agreed.expected,
        "kappa": agreed.kappa, "f1": agreed.f1, "macro_f1": agreed.macro_f1,
    }  # fmt: skip


def rollout(case):
    a, options = arrays_of(case), hyper_of(case)
    names = latent_dynamics.ContinuousRNN._fields
    params = latent_dynamics.ContinuousRNN(*(a[f"param/{name}"] for name in names))
    time = {"dt": options["dt"], "tau": options["tau"]}
    window = a["latents"][-options["n_past"] :]
    hidden, output = latent_dynamics.run_continuous_rnn(params, window, **time)
    step = lambda past: latent_dynamics.next_latent(params, past, **time)
    steps = latent_dynamics.latent_rollout(step, a["latents"], options["n_past"], options["steps"])
    return {"hidden": hidden, "output": output, "rollout": steps}


def slots(case):
    a, options = arrays_of(case), hyper_of(case)
    return contrastive_slots(
        a["state"], a["transition"], a["next_state"], a["permutation"],
        hinge=options["hinge"], sigma=options["sigma"],
    )._asdict()  # fmt: skip


def balls(case):
    a, options = arrays_of(case), hyper_of(case)
    found = pong.path(
        a["x0"], a["y0"], a["vx0"], a["vy0"],
        frames=options["frames"], occluder=options["occluder"],
    )  # fmt: skip
    n, frames = a["image"].shape[:2]
    shown = [array[:n, :frames] for array in (found.x, found.y, found.visible)]
    return found._asdict() | {
        "contact": pong.meets(found.intercept, a["paddle"], options["half_width"]),
        "image": pong.draw(*shown, side=options["side"], sigma=options["sigma"]),
    }


def scenes(case):
    a = arrays_of(case)
    items = a["items"]
    scene, *asked = items[:, :6].T
    found = scene_items.answer(a["scenes"][scene], *asked, side=hyper_of(case)["side"])
    columns = [found.answer, found.valid.astype(int), found.kind]
    return {"items": jnp.concatenate([items[:, :6], jnp.stack(columns, 1)], 1)}


def retrieval(case):
    a, options, found = arrays_of(case), hyper_of(case), {}
    vocabulary = a["document_frequency"].shape[0]
    for variant in bm25.VARIANTS:
        if f"score_{variant}" not in a:
            continue
        index = bm25.build_index(
            a["documents"], vocabulary, variant=variant, k1=options["k1"], b=options["b"],
            epsilon=options.get("epsilon_okapi", 0.25),
        )  # fmt: skip
        found[f"idf_{variant}"] = index.idf
        found[f"score_{variant}"] = bm25.score(index, a["queries"])
        if variant == "lucene":
            found["top"] = bm25.retrieve(index, a["queries"], a["top"].shape[1])
            found["document_length"] = index.document_length
            found["document_frequency"] = index.document_frequency
    return found


def rewards(case):
    a, options = arrays_of(case), hyper_of(case)
    numbers = {
        "threshold": options["tau"], "match": options["r_match"],
        "accept_wrong": options["accept_wrong"], "reject_right": options["reject_right"],
    }  # fmt: skip
    step = judged_search.judge_rewards(a["judge"], a["utility"], **numbers)
    judged = a["judge"] >= 0
    whole = lambda **how: judged_search.trajectory_reward(step, a["em"], a["turns"], judged, **how)
    facts = [a[name] for name in ("judge", "utility", "em", "has_answer")]
    regex = judged_search.released_regex(*facts, boost=options["answer_boost"], **numbers)
    rerank = judged_search.released_rerank(*facts)
    total = whole()
    grouped = total.reshape(options["prompts"], options["group"])
    return {
        "ideal": (a["utility"] > options["tau"]).astype(int), "step_reward": step,
        "total": total, "discounted": whole(gamma=options["gamma"]),
        "mean_total": whole(how="mean"),
        "steps_code_regex": regex.step, "code_regex": regex.total,
        "steps_code_rerank": rerank.step, "code_rerank": rerank.total,
        "advantage": policy_gradient.group_advantages(grouped, ddof=options["ddof"]),
    }  # fmt: skip


def context(case):
    a = arrays_of(case)
    found = judged_search.context_masks(a["kind"], a["observation"], a["judge"], a["judge_end"])
    return {"soft": found.soft, "hard": found.hard, "loss_mask": found.loss}


def chair(case):
    a = arrays_of(case)
    found = injection.chair(a["truth"], a["mentions"])
    return {"chair_i": found.instances, "chair_s": found.sentences, "recall": found.recall}


def injection_plan(case):
    a, options = arrays_of(case), hyper_of(case)
    counts = injection.cooccurrence(a["presence"])
    lengths = options["sentences"]
    plans = [injection.injection_plan(n, options["rate"], options["skip"]) for n in lengths]
    width = a["weights"].shape[1]
    weights = np.stack([np.pad(plan.weights, (0, width - len(plan.weights))) for plan in plans])
    chosen = injection.choose_sentences(
        jnp.asarray(weights[-1]), a["gumbel"], max(plans[-1].count, 1)
    )
    return {
        "cooccurrence": counts,
        "candidates": injection.guide_candidates(counts, a["presence"], options["top"]),
        "weights": weights, "replace_count": [plan.count for plan in plans],
        "usable": [plan.usable for plan in plans], "selected": chosen,
    }  # fmt: skip


def mitigation(case):
    a = arrays_of(case)
    threshold = hyper_of(case)["threshold"]
    return self_contradiction.mitigate(
        a["text"], a["alternatives"], a["functional"], threshold=threshold
    )._asdict()


def trigger(case):
    a = arrays_of(case)
    found = self_contradiction.detection(a["score"], a["label"], a["threshold"])
    return {
        "contradiction_sampled": self_contradiction.contradiction_rate(a["p"]),
        "contradiction_greedy": self_contradiction.contradiction_rate(a["p"], greedy=True),
        **found._asdict(),
    }


def pool(case):
    sequences, options = case.arrays["sequences"], hyper_of(case)
    return {
        "rouge_l": self_specialization.rouge_l(sequences, sequences),
        "token_f1": self_specialization.token_f1(sequences, sequences),
        "kept": self_specialization.keep_different(
            sequences, options["seeds"], options["threshold"]
        ),
    }


ADAPTERS = {
    (FAMILY, name): in_float64(adapter)
    for name, adapter in {
        "agnosia_rates": agnosia_rates,
        "apasi_injection_plan": injection_plan,
        "attention_policy": attention_policy,
        "bm25": retrieval,
        "chair": chair,
        "chatprotect_mitigation": mitigation,
        "chatprotect_trigger_and_detection": trigger,
        "contrastive_slots": slots,
        "directed_connectivity": connectivity,
        "hsmm_filter": semi_markov_filter,
        "latent_rollout": rollout,
        "mvar_fit": mvar,
        "permutation_fdr": permutation_fdr,
        "pong": balls,
        "predictivity": predict,
        "reseek_context_mask": context,
        "reseek_reward": rewards,
        "scene_items": scenes,
        "self_specialization_pool": pool,
        "text_homogeneity": homogeneity,
    }.items()
}
