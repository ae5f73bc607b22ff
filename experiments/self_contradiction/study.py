"""What a model contradicts, by trigger and by fact; and what revising leaves of its texts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.self_contradiction import figures
from experiments.self_contradiction.texts import FACTS, Text, mitigated, texts_of
from experiments.self_contradiction.writer import (
    gap,
    next_probability,
    pair_prompt,
    sample_lesson,
    write,
)
from experiments.word_models import taught, word_model
from jattn.systems import self_contradiction as method
from jattn.tasks import biographies as bio
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2305.15852", "Self-contradictory hallucinations of large language models")
TRIGGERS = ("continuation", "rephrase", "question", "triple")


def triggered(config, llama, weights, texts: list[Text], seed: int) -> dict[str, np.ndarray]:
    """For each trigger and fact: whether another sentence names its attribute, and its value."""
    facts = [(text, i, a, v) for text in texts for i, s in enumerate(text.sentences) for a, v in s]
    attributes = [a for *_, a, _ in facts]
    rng = np.random.default_rng(seed)

    def drawn(prompts):  # the value, or -1 where it is no value of the attribute that is asked for
        p = next_probability(llama, weights, prompts).astype(float).cumsum(1)
        token = (p > p[:, -1:] * rng.random((len(p), 1))).argmax(1)
        value = token - bio.FIRST_VALUE - bio.VALUES * np.array(attributes)
        return np.where((value >= 0) & (value < bio.VALUES), value, -1)

    ask = [[bio.ASK, bio.FIRST_PERSON + t.person, bio.FIRST_ATTRIBUTE + a] for t, _, a, _ in facts]
    gaps = [gap(t.person, t.sentences[:i], a) for t, i, a, _ in facts]
    value = {"question": drawn(ask), "triple": drawn(gaps)}
    sentences = [(text, i) for text in texts for i in range(len(text.sentences))]
    before = [bio.render(text.person, text.sentences[:i]) for text, i in sentences]
    again = [
        [bio.REPHRASE, bio.FIRST_PERSON + text.person,
         *bio.render(0, [text.sentences[i]])[2:-1], bio.SEP]
        for text, i in sentences
    ]  # fmt: skip
    for name, prompts in (("continuation", before), ("rephrase", again)):
        key = jax.random.key(seed + TRIGGERS.index(name))
        rows = write(llama, weights, prompts, key, one_sentence=True)
        told = [dict(_clauses(row)) for row in rows]
        where = {(id(text), i): number for number, (text, i) in enumerate(sentences)}
        value[name] = np.array([told[where[id(t), i]].get(a, -1) for t, i, a, _ in facts])
    return {name: value[name] for name in TRIGGERS} | {
        "person": np.array([t.person for t, *_ in facts]),
        "attribute": np.array(attributes),
        "value": np.array([v for *_, v in facts]),
    }


def _clauses(row: list[int]) -> list[tuple[int, int]]:
    """Clauses of one sentence; one that was cut off has none."""
    found = bio.parse(np.array([bio.START, bio.FIRST_PERSON, *row]))[1]
    return found[0] if found else []


def measured(run: Run, config, seed: int) -> dict[str, np.ndarray]:
    """Everything of one world and one model."""
    world = bio.biographies(jax.random.key(seed), ambiguous=config.ambiguous)
    llama = word_model(config, bio.VOCABULARY)
    sample = functools.partial(sample_lesson, world)
    weights = taught(run, config, llama, sample, name=f"writer_{seed}", seed=seed)
    texts = texts_of(config, llama, weights, jax.random.key(seed + 1))
    p = np.asarray(world.probability)
    found = triggered(config, llama, weights, texts, seed + 2)
    who, what, first = (found.pop(name) for name in ("person", "attribute", "value"))
    named = {name: value >= 0 for name, value in found.items()}
    differ = {name: named[name] & (value != first) for name, value in found.items()}
    functional = bio.FUNCTIONAL[what]
    unsure = np.asarray(world.ambiguous)[who, what]
    predicted = np.asarray(method.contradiction_rate(world.probability))[who, what]
    over = lambda rows, chosen: float(rows[chosen].mean())
    exact = mitigated(config, llama, weights, texts, world, seed + 3, judge="exact")
    own = mitigated(config, llama, weights, texts, world, seed + 4, judge="model")
    # Facts of the text against what the triple named: the judge is to find where they differ.
    prompts = [pair_prompt(*pair) for pair in zip(who, what, first, found["triple"], strict=True)]
    judged = next_probability(llama, weights, prompts)
    yes = judged[:, bio.YES] / (judged[:, bio.YES] + judged[:, bio.NO])
    votes = np.random.default_rng(seed).binomial(config.votes, yes) / config.votes
    label = differ["triple"] & functional
    asked = map(jnp.asarray, (votes, label, [config.threshold]))
    quality = method.detection(*asked)
    share = label.mean()
    return {
        "named": np.array([named[name].mean() for name in TRIGGERS]),
        "triggered": np.array([over(differ[name], functional) for name in TRIGGERS]),
        "certain": np.array(over(differ["triple"], functional & ~unsure)),
        "unsure": np.array(over(differ["triple"], functional & unsure)),
        "theory": np.array(over(predicted, functional & unsure)),
        "pair": np.stack([predicted, differ["triple"]], 1)[functional],
        "f1": np.array([float(quality.f1[0]), 2 * share / (1 + share)]),
        "right": np.array(over(p[who, what, first] >= p[who, what].max(1) - 1e-6, functional)),
        **{f"exact_{name}": value for name, value in exact.items()},
        **{f"own_{name}": value for name, value in own.items()},
    }


def biographies(run: Run, config) -> list[Claim]:
    """Trains writers, and measures what they contradict and what revising leaves."""
    rows = [
        run.cached(f"biographies_{seed}", lambda seed=seed: measured(run, config, seed))
        for seed in range(config.seed, config.seed + config.seeds)
    ]
    of = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name not in FACTS}
    figures.draw(run, config, rows, TRIGGERS)
    mean = {name: float(value.mean()) for name, value in of.items() if value.ndim == 1}
    seeds = lambda values: values if len(rows) > 1 else None
    triple, onward = TRIGGERS.index("triple"), TRIGGERS.index("continuation")
    gain = of["triggered"][:, triple] - of["triggered"][:, onward]
    rates = of["exact_rate"]
    rise = np.diff(rates, axis=1).max(1)
    more = of["exact_kept"][:, -1] - of["exact_dropped"]
    said = lambda values: ", ".join(
        f"{name} {x:.3f}" for name, x in zip(TRIGGERS, values.mean(0), strict=True)
    )
    rounds = " ".join(f"{x:.3f}" for x in rates.mean(0))
    kept = " ".join(f"{x:.0f}" for x in of["exact_kept"].mean(0))
    claim = PAPER.claim
    return [
        claim(
            "comparable", "Filling a gap names the attribute that was asked for: share of pairs "
            "that can be compared.", 0.95, float(of["named"][:, triple].mean()), ">=",
            because="nearly all should be", seeds=seeds(of["named"][:, triple]),
            note=said(of["named"]) + "; a text tells each attribute once, so that going on names "
            "it, too, sooner or later",
        ),
        claim(
            "trigger", "So filling gaps finds more contradictions than going on does: difference "
            "of rates.", 0.0, float(gain.mean()), ">", where="the ablation of triggers",
            seeds=seeds(gain), note=said(of["triggered"]),
        ),
        claim(
            "certain", "Facts with one value are seldom contradicted: rate.", 0.03,
            mean["certain"], "<", because="what is learned by heart is repeated",
            seeds=seeds(of["certain"]),
        ),
        claim(
            "uncertain", "Facts with more are, as often as 1 - sum p^2 says: rate.",
            mean["theory"], mean["unsure"], "~=", 0.05, derived=True, seeds=seeds(of["unsure"]),
        ),
        claim(
            "flagged", "Facts that ten alternatives flag are as many as the binomial law of the "
            "texts' weights says: share in the first round.", float(of["exact_expected"].mean()),
            float(of["exact_flagged"].mean()), "~=", 0.05, derived=True,
            seeds=seeds(of["exact_flagged"]),
        ),
        claim(
            "rounds", "Rounds of revising lower the share of sentences that are flagged: largest "
            "rise from one round to the next.", 0.0, float(rise.mean()), "<=",
            where="the table of rounds", seeds=seeds(rise), note=f"by round: {rounds}",
        ),
        claim(
            "kept", "Revising and then dropping leaves more facts than dropping at once: "
            "difference.", 0.0, float(more.mean()), ">", where="the ablation of dropping",
            seeds=seeds(more), note=f"facts by round: {kept}; dropped at once "
            f"{of['exact_dropped'].mean():.0f}; perplexity {of['exact_perplexity'].mean(0)[0]:.2f} "
            f"to {of['exact_perplexity'].mean(0)[1]:.2f}",
        ),
        claim(
            "truth", "What is left agrees more often with what most texts say, which nobody asked "
            "for: gain in the share of facts.", 0.0,
            float((of["exact_truth"][:, -1] - of["exact_truth"][:, 0]).mean()), ">",
            derived=True, seeds=seeds(of["exact_truth"][:, -1] - of["exact_truth"][:, 0]),
            note=f"{of['exact_truth'][:, 0].mean():.3f} to {of['exact_truth'][:, -1].mean():.3f}; "
            f"with the model's own judge to {of['own_truth'][:, -1].mean():.3f}",
        ),
        claim(
            "judge", "A judge that the model learned is better than one that always says yes: "
            "difference of F1 (an exact parser has 1).", 0.0,
            float((of["f1"][:, 0] - of["f1"][:, 1]).mean()), ">",
            because="that is the best one without looking",
            seeds=seeds(of["f1"][:, 0] - of["f1"][:, 1]),
            note=f"F1 {of['f1'][:, 0].mean():.3f}",
        ),
    ]  # fmt: skip
