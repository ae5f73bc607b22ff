"""Texts that a model wrote, and what rounds of judging and revising make of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.self_contradiction.writer import (
    Sentences,
    gap,
    next_probability,
    of_values,
    pair_prompt,
    write,
)
from jattn.systems import self_contradiction as method
from jattn.tasks import biographies as bio

SENTENCES = bio.ATTRIBUTES  # of a text at most
# What is kept of single texts, for figures.
FACTS = ("pair", *(f"{judge}_{name}" for judge in ("exact", "own") for name in ("text", "keep")))


class Text(NamedTuple):
    """A text.

    Attributes:
        person: whom it is about.
        sentences: their clauses.
    """

    person: int
    sentences: Sentences


def texts_of(config, llama, weights, key: jax.Array) -> list[Text]:
    """So many texts of each person, drawn at temperature 1; a last sentence cut off is left out."""
    people = np.tile(np.arange(bio.PEOPLE), config.texts)
    prompts = [[bio.START, bio.FIRST_PERSON + int(person)] for person in people]
    rows = write(llama, weights, prompts, key)
    parsed = [bio.parse(np.array(p + row)) for p, row in zip(prompts, rows, strict=True)]
    return [Text(person, sentences[:SENTENCES]) for person, sentences in parsed]


def as_array(text: Text) -> np.ndarray:
    """Facts `[sentences, clauses, (person, attribute, value)]`, -1 where there is none."""
    facts = np.full((SENTENCES, bio.CLAUSES, 3), -1)
    for i, sentence in enumerate(text.sentences):
        for f, (attribute, value) in enumerate(sentence):
            facts[i, f] = text.person, attribute, value
    return facts


def left(text: np.ndarray, keep: np.ndarray) -> Sentences:
    """Sentences of what is kept of facts."""
    return [
        [(int(a), int(v)) for (_, a, v), k in zip(s, ks, strict=True) if k]
        for s, ks in zip(text, keep, strict=True)
    ]


def mitigated(
    config, llama, weights, texts: list[Text], world: bio.World, seed: int, *, judge: str
) -> dict[str, np.ndarray]:
    """Rounds of judging and revising of all texts; see `jattn.systems.self_contradiction`.

    Sentences that did not change are not judged again. Alternatives fill the gap behind what is
    left of the text before them.

    Args:
        config, llama, weights: the settings and the model.
        texts: that it wrote.
        world: what is certain, and what is true.
        seed: of alternatives and votes.
        judge: `"exact"`: alternatives are drawn, and compared by the parser; `"model"`: the
            likeliest one, and the model's votes on the pair.
    """
    rng = np.random.default_rng(seed)
    facts = np.stack([as_array(text) for text in texts])
    count, rounds = len(texts), config.rounds + 1
    shape = (rounds, *facts.shape[:3], config.votes)
    others = np.broadcast_to(facts[None, ..., 2:], shape).copy()
    functional = bio.FUNCTIONAL if judge == "exact" else np.ones(bio.ATTRIBUTES, bool)

    def judged(others) -> method.Mitigation:
        """Of the sentences of all texts at once: what did not change is not flagged again."""
        flat = (facts.reshape(-1, bio.CLAUSES, 3), others.reshape(len(others), -1, *shape[3:]))
        arrays = map(jnp.asarray, (*flat, functional))
        return method.mitigate(*arrays, threshold=config.threshold)

    keep = np.all(facts >= 0, axis=-1)
    changed = keep.any(-1)
    for number in range(rounds):
        if number:
            others[number] = others[number - 1]
        where = np.argwhere(keep & changed[..., None])
        if len(where):
            rest = [left(text, kept) for text, kept in zip(facts, keep, strict=True)]
            votes = _votes(config, llama, weights, facts, rest, where, rng, judge)
            n, i, f = where.T
            others[number, n, i, f] = votes
        after = judged(others).keep[number + 1].reshape(keep.shape)
        changed = (after != keep).any(-1) & after.any(-1)
        keep = after
    found = judged(others)
    keeps = found.keep.reshape(-1, count, *keep.shape[1:])
    at_once = int(judged(others[:1]).keep[-1].sum())
    score = found.score.reshape(-1, *keep.shape)
    return _summary(config, llama, weights, world, facts, keeps, score, at_once)


def _votes(config, llama, weights, facts, rest, where, rng, judge) -> np.ndarray:
    """For each fact `[n, votes]`: values of alternatives, or its own where the judge says no."""
    person, attribute, value = facts[tuple(where.T)].T
    prompts = [
        gap(int(p), rest[n][:i], int(a))
        for p, a, (n, i, _) in zip(person, attribute, where, strict=True)
    ]
    p = of_values(next_probability(llama, weights, prompts), attribute)
    if judge == "exact":
        draws = rng.random((len(p), config.votes, 1))
        return (p.cumsum(1)[:, None] > draws).argmax(-1)
    pairs = zip(person, attribute, value, p.argmax(1), strict=True)
    judged = next_probability(llama, weights, [pair_prompt(*map(int, pair)) for pair in pairs])
    yes = judged[:, bio.YES] / (judged[:, bio.YES] + judged[:, bio.NO])
    says = rng.random((len(p), config.votes)) < yes[:, None]
    return np.where(says, (value[:, None] + 1) % bio.VALUES, value[:, None])


def _summary(config, llama, weights, world, facts, keep, score, at_once):
    alive = keep[:-1].any(-1)
    rate = (score > config.threshold).any(-1).sum((1, 2)) / np.maximum(alive.sum((1, 2)), 1)
    person, attribute, value = np.moveaxis(np.maximum(facts, 0), -1, 0)
    most = np.asarray(world.truth)[person, attribute] == value
    known = bio.FUNCTIONAL[attribute]
    share = lambda mask: (most & mask & known).sum() / max((mask & known).sum(), 1)
    law = np.stack([
        [method.flag_rate(jnp.asarray(p), config.votes, threshold=config.threshold) for p in row]
        for row in np.asarray(world.probability)
    ])  # fmt: skip
    asked = keep[0] & known
    rest = lambda mask: [left(text, kept) for text, kept in zip(facts, mask, strict=True)]
    people = facts[:, 0, 0, 0]
    return {
        "rate": rate,
        "kept": keep.sum((1, 2, 3)),
        "dropped": np.array(at_once),
        "truth": np.array([share(mask) for mask in keep]),
        "flagged": np.array((score[0] > config.threshold)[asked].mean()),
        "expected": np.array(law[person, attribute, value][asked].mean()),
        "perplexity": np.array(
            [perplexity(llama, weights, people, rest(mask)) for mask in (keep[0], keep[-1])]
        ),
        "text": facts[:24],
        "keep": keep[:, :24],
    }


def perplexity(llama, weights, people: np.ndarray, texts: list[Sentences]) -> float:
    """The model's own perplexity of values in texts: how fluent they are to it."""
    prompts, tokens = [], []
    for person, sentences in zip(people, texts, strict=True):
        row = bio.render(int(person), sentences)
        for at in range(3, len(row)):
            if row[at] >= bio.FIRST_VALUE:
                prompts.append(row[:at])
                tokens.append(row[at])
    if not tokens:
        return float("nan")
    p = next_probability(llama, weights, prompts)[np.arange(len(tokens)), tokens]
    return float(np.exp(-np.log(np.maximum(p, 1e-12)).mean()))
