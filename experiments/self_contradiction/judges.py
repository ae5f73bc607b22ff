"""A trained language model as the judge of pairs: as it is, and after a few steps of adapters."""

import numpy as np

from experiments.language_model_judges import Prompts, claims_of, judged
from experiments.self_contradiction.study import PAPER
from jattn.training import Claim, Run

PEOPLE = ("Anna Kovac", "Peter Lind", "Maria Costa", "John Abel", "Ruth Stein", "Omar Haddad")
FACTS = (
    ("was born in", ("Rome", "Paris", "Vienna", "Cairo", "Lima", "Oslo")),
    ("works as a", ("baker", "doctor", "teacher", "painter", "lawyer", "farmer")),
    ("is married to", ("Susan", "Robert", "Helen", "David", "Laura", "Simon")),
)


def pairs_of(rng: np.random.Generator, count: int) -> Prompts:
    """Prompts about two statements, half of which cannot both be true; and which do."""
    texts, labels = [], rng.permutation(count) < count / 2
    for contradicts in labels:
        person = PEOPLE[rng.integers(len(PEOPLE))]
        relation, values = FACTS[rng.integers(len(FACTS))]
        first, second = rng.choice(values, 2, replace=False)
        other = second if contradicts else first
        texts.append(
            f"Statement 1: {person} {relation} {first}.\nStatement 2: {person} {relation} {other}."
            "\nDo the two statements contradict each other? Answer Yes or No.\nAnswer:"
        )
    return texts, labels


def judges(run: Run, config) -> list[Claim]:
    """Asks the language model before and after it has seen pairs with their labels."""
    rng = np.random.default_rng(config.seed)
    pairs = [pairs_of(rng, config.pairs) for _ in range(2)]
    found = run.cached("judges", lambda: judged(config, *pairs))
    return claims_of(run, PAPER, found, positive="contradictory", negative="the same")
