"""A trained language model as the judge of what a search found: does it help with the question?"""

import jax
import numpy as np

from experiments.judged_search.tabular import PAPER
from experiments.language_model_judges import Prompts, claims_of, judged
from jattn.tasks import fictional_search as task
from jattn.training import Claim, Run

RELATIONS = ("teacher", "neighbour", "rival", "sister", "doctor", "employer")
SYLLABLES = ("Ka", "Ro", "Mi", "Ta", "Lu", "Ne", "So", "Vi")


def name_of(words: np.ndarray) -> str:
    """An entity's name; each word is two syllables."""
    pairs = [divmod(int(word) - task.FIRST_WORD, len(SYLLABLES)) for word in words]
    return " ".join(SYLLABLES[a] + SYLLABLES[b].lower() for a, b in pairs)


def in_english(document: np.ndarray) -> str:
    """A document as a sentence."""
    relation = RELATIONS[int(document[2]) - task.FIRST_RELATION]
    return f"The {relation} of {name_of(document[:2])} is {name_of(document[3:])}."


def observations(key: jax.Array, count: int) -> Prompts:
    """Prompts about questions and two documents, in half of which the next gold fact is.

    The others are documents about the same entity: they name it, and say something else.
    """
    draw = jax.vmap(task.sample_question)
    asked = jax.tree.map(np.asarray, draw(jax.random.split(key, count)))
    seed = int(jax.random.randint(key, (), 0, 2**30))
    rng = np.random.default_rng(seed)
    texts, labels = [], rng.permutation(count) < count / 2
    for row, useful in enumerate(labels):
        gold, tokens = asked.gold[row, 0], asked.tokens[row]
        world = jax.tree.map(lambda x, row=row: x[row], asked.world)
        every = np.asarray(task.documents(world))
        others = every[(every[:, :2] == gold[:2]).all(1) & (every[:, 2] != gold[2])]
        found = [*rng.permutation(others)[: 1 if useful else 2], *([gold] if useful else [])]
        told = " ".join(in_english(found[index]) for index in rng.permutation(2))
        relations = [RELATIONS[int(t) - task.FIRST_RELATION] for t in tokens[3:] if t != task.NONE]
        what = " of the ".join(reversed(relations))
        texts.append(
            f"Question: Who is the {what} of {name_of(tokens[1:3])}?\nFound: {told}\n"
            "Does what was found help to answer the question? Answer Yes or No.\nAnswer:"
        )
    return texts, labels


def judges(run: Run, config) -> list[Claim]:
    """Asks the language model before and after it has seen observations with their utility."""
    keys = jax.random.split(jax.random.key(config.seed + 5))
    made = [observations(key, config.observations) for key in keys]
    found = run.cached("judges", lambda: judged(config, *made))
    return claims_of(run, PAPER, found, positive="helps", negative="does not")
