"""A base model, its seeds, and the experts that it makes of itself: who answers what."""

import functools

import jax
import numpy as np

from experiments.plots import COLORS, label, panels
from experiments.self_specialization import expert
from experiments.self_specialization.expert import SHOTS, Pair
from experiments.word_models import taught, word_model
from jattn.tasks import domain_facts as facts
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2310.00160", "Self-specialization: uncovering latent expertise")
ROWS = {
    "zero": "as it is",
    "few": f"{SHOTS} examples in view",
    "seeds": "tuned on the seeds",
    "self": "tuned on its own pairs",
    "documents": "its own, with documents",
}


def measured(run: Run, config, seed: int) -> dict[str, np.ndarray]:
    """Scores of one base model and its experts."""
    world = facts.domain_facts(jax.random.key(seed), covered=config.covered)
    llama = word_model(config, facts.VOCABULARY)
    sample = functools.partial(expert.sample_lesson, world)
    weights = taught(run, config, llama, sample, name=f"base_{seed}", seed=seed)
    domain, style = config.domain, config.style
    others = [d for d in range(facts.DOMAINS) if d != domain]

    # Seeds are examples that somebody wrote: of facts that are known.
    asked = expert.questions(world, domain, config.examples, seed + 1, covered=True)
    seeds = expert.answered_rightly(world, domain, style, asked)
    test = [
        row
        for row in expert.questions(world, domain, config.test_size + len(seeds), seed + 2)
        if row not in asked
    ][: config.test_size]

    def answered(weights, rows, shots=(), documents=None):
        documents = [()] * len(rows) if documents is None else documents
        prompts = [expert.prompt(r, shots, d) for r, d in zip(rows, documents, strict=True)]
        return expert.answers(llama, weights, prompts)

    def scored(weights, rows=test, shots=(), of=domain):
        return expert.scores(world, of, style, rows, answered(weights, rows, shots))

    shots = seeds[:SHOTS]
    written, share = expert.instructions(llama, weights, seeds, config.instructions, test, seed + 3)
    if len(written) < SHOTS:
        raise ValueError(f"instructions: expected at least {SHOTS}, the model wrote {len(written)}")
    told = expert.documents_of(world, domain, written)
    labels = {
        "self": answered(weights, written, shots),
        "documents": answered(weights, written, shots, told),
    }
    pairs = {
        name: [Pair(row, said) for row, said in zip(written, rows, strict=True) if said]
        for name, rows in labels.items()
    }
    tune = functools.partial(expert.tuned, config, llama, weights, seed=seed + 4)
    experts = {
        "seeds": tune(seeds, rank=config.rank),
        "self": tune(pairs["self"], rank=config.rank),
        "documents": tune(pairs["documents"], rank=config.rank),
    }
    found = {"zero": scored(weights), "few": scored(weights, shots=shots)}
    found |= {name: scored(weights) for name, weights in experts.items()}
    known = np.array([_known(world, domain, row) for row in test])

    def elsewhere(weights):
        each = []
        for other in others:
            count = config.test_size // 2 + SHOTS
            rows = expert.questions(world, other, count, seed + 5, covered=True)
            own = expert.answered_rightly(world, other, style, rows)
            each.append(scored(weights, rows[SHOTS:], own[:SHOTS], other).whole.mean())
        return np.mean(each)

    wide = tune(pairs["self"], rank=config.large_rank)
    of_labels = {
        name: expert.scores(world, domain, style, written, rows).content
        for name, rows in labels.items()
    }
    plain = np.array([facts.parse(np.array(row))[0] == facts.VALUE for row in written])
    return {
        **{f"whole_{name}": of.whole for name, of in found.items()},
        **{f"content_{name}": of.content for name, of in found.items()},
        "known": known,
        "share": np.array(share),
        "written": np.array(len(written)),
        "label_self": of_labels["self"],
        "label_documents": of_labels["documents"],
        "plain": plain,
        "asked_known": np.array([_known(world, domain, row) for row in written]),
        "elsewhere": np.array([elsewhere(w) for w in (weights, experts["self"], wide)]),
    }


def _known(world: facts.World, domain: int, row: list[int]) -> bool:
    """Whether the base model was asked for the fact."""
    form, entity, relation = facts.parse(np.array(row))
    covered = np.asarray(world.covered)[domain, :, relation]
    if form != facts.WHO:
        return bool(covered[entity])
    right = facts.right_content(np.asarray(world.truth), domain, np.array(row))
    first = facts.FIRST_ENTITY + domain * facts.ENTITIES
    return any(covered[token - first] for token in right)


def domains(run: Run, config) -> list[Claim]:
    """Makes experts of base models, and measures what they gain and lose."""
    rows = [
        run.cached(f"domains_{seed}", lambda seed=seed: measured(run, config, seed))
        for seed in range(config.seed, config.seed + config.seeds)
    ]
    _draw(run, rows)
    whole = {name: np.array([row[f"whole_{name}"].mean() for row in rows]) for name in ROWS}
    tests = len(rows) * config.test_size
    error = (0.25 / tests) ** 0.5  # at most, of a share
    seeds = lambda values: values if len(rows) > 1 else None
    mean = lambda values: float(np.mean(values))
    gap = whole["few"] - whole["zero"]
    closed = (whole["self"] - whole["zero"]) / np.where(np.abs(gap) > 1e-9, gap, np.nan)

    def gained(known: bool):
        """What documents add to the content of answers, by whether the fact was known."""
        each = []
        for row in rows:
            of = row["known"] == known
            each.append(row["content_documents"][of].mean() - row["content_self"][of].mean())
        return np.array(each)

    # A gain on them that is larger than that on the others.
    unknown_gain = np.minimum(gained(False), gained(False) - gained(True))
    label_of = np.array([row["label_self"].mean() for row in rows])
    student = np.array([row["content_self"].mean() for row in rows])
    values = np.concatenate([row["label_self"][row["plain"]] for row in rows])
    # Of what it asks itself: it prefers questions like those that it has seen.
    covered = np.concatenate([row["asked_known"][row["plain"]] for row in rows]).mean()
    chance = covered + (1 - covered) / facts.VALUES
    before, narrow, wide = np.stack([row["elsewhere"] for row in rows], 1)
    note = ", ".join(f"{text} {whole[name].mean():.3f}" for name, text in ROWS.items())
    spread = "two standard errors of the test are %.3f" % (2 * 2**0.5 * error)
    claim = PAPER.claim
    return [
        claim("seeds-help", "Tuned on the seeds alone, it answers more questions as wanted than as "
              "it is: gain.", 0.0, mean(whole["seeds"] - whole["zero"]), ">",
              because="0 is no gain", note=f"{note}; {spread}",
              seeds=seeds(whole["seeds"] - whole["zero"])),
        claim("self-beats-seeds", "Tuned on pairs of its own it answers more than tuned on the "
              "seeds: gain.", 0.0, mean(whole["self"] - whole["seeds"]), ">",
              because="0 is no gain", note=spread, seeds=seeds(whole["self"] - whole["seeds"])),
        claim("documents-help", "With documents in view while it labels, no fewer: gain.", 0.0,
              mean(whole["documents"] - whole["self"]), ">=", because="0 is no gain", note=spread,
              seeds=seeds(whole["documents"] - whole["self"])),
        claim("gap", f"Half of what {SHOTS} examples in view add is in the weights then: share.",
              0.5, mean(closed), ">=", because="half is much", seeds=seeds(closed)),
        claim("documents-unknown", "What documents add is on facts that it was never asked for: "
              "the smaller of their gain in right contents, and of that less the others' gain.",
              0.0, mean(unknown_gain),
              ">", because="0 is no difference", note=f"{mean(gained(False)):+.3f} and "
              f"{mean(gained(True)):+.3f}", seeds=seeds(unknown_gain)),
        claim("labels-bound", "The student is no better than its labels: share of right contents, "
              "less theirs.", 0.0, mean(student - label_of), "<=", 2 * 2**0.5 * error,
              because="two standard errors of both shares", note=f"{mean(student):.3f}, labels "
              f"{mean(label_of):.3f}, with documents "
              f"{np.mean([row['label_documents'].mean() for row in rows]):.3f}",
              seeds=seeds(student - label_of)),
        claim("labels-coverage", "Labels of plain questions are no better than what was covered "
              "and chance allow: share that is right.", chance, float(values.mean()), "<=",
              2 * (0.25 / max(len(values), 1)) ** 0.5, because="two standard errors",
              note=f"{len(values)} labels, {covered:.3f} of them covered"),
        claim("elsewhere", f"With adapters of rank {config.rank} other domains lose less than a "
              "tenth: fall of answers as wanted, examples in view.", 0.1, mean(before - narrow),
              "<", because="a tenth is noticed", note=f"{mean(before):.3f} before",
              seeds=seeds(before - narrow)),
        claim("elsewhere-rank", f"With rank {config.large_rank} they lose more: difference of "
              "falls.", 0.0, mean(narrow - wide), ">", because="0 is no difference",
              seeds=seeds(narrow - wide)),
    ]  # fmt: skip


def _draw(run: Run, rows: list[dict[str, np.ndarray]]) -> None:
    figure, axes = panels(1, 2, width=4.2)
    left, right = axes[0]
    place = np.arange(len(ROWS))
    for number, (known, text) in enumerate(((True, "known facts"), (False, "others"))):
        values = [
            [row[f"whole_{name}"][row["known"] == known].mean() for row in rows] for name in ROWS
        ]
        left.bar(place + 0.35 * (number - 0.5), np.mean(values, 1), 0.33, color=COLORS[number],
                 label=text)  # fmt: skip
    left.set_xticks(place, list(ROWS), fontsize=8)
    label(left, "", "answered as wanted", "the target's domain")
    fall = np.stack([row["elsewhere"] for row in rows]).mean(0)
    right.bar(range(3), fall, color=COLORS[2])
    right.set_xticks(range(3), ["base", "expert", "large rank"], fontsize=8)
    label(right, "", "answered as wanted", "other domains, examples in view")
    run.save_figure(
        figure, "domains", "Left: questions that are answered rightly and in the style that is "
        "wanted: " + ", ".join(f"{name}: {text}" for name, text in ROWS.items()) + ". Right: what "
        "is left of other domains."
    )  # fmt: skip
