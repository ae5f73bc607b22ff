"""Texts of a writer at rising temperatures, and of people: how alike they are.

The writer `words` has learned which word follows two others in the reference of the Python
language, and its truth is exact: at temperature T it draws from `p^(1/T)`. The writer `smollm2` is
the trained language model. What people wrote is the reference itself, in pieces as long.
"""

from collections import Counter, defaultdict

import jax
import numpy as np
from scipy.stats import spearmanr

from experiments.directed_connectivity import figures
from experiments.directed_connectivity.common import PAPER
from jattn.tasks.text import WORD, english_text
from jattn.theory import text_homogeneity as th
from jattn.training import Claim, Run

PROMPT = "Write a short essay about whether people should always tell the truth."
Documents = list[list[str]]


def follow(text: str) -> dict[tuple[str, str], tuple[list[str], np.ndarray]]:
    """Which words follow each pair of words, and how often."""
    words = WORD.findall(text.lower())
    table: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for a, b, c in zip(words, words[1:], words[2:], strict=False):
        table[a, b][c] += 1
    return {pair: (list(c), np.array(list(c.values()), float)) for pair, c in table.items()}


def written_words(config, rng: np.random.Generator) -> dict[float, Documents]:
    """Documents of the writer `words`, all from one prompt, for each temperature."""
    table = follow(english_text())
    start = ("the", "following")

    def one(temperature: float) -> list[str]:
        words: list[str] = [*start]
        while len(words) < config.length + 2:
            choices, counts = table.get((words[-2], words[-1]), table[start])
            logs = np.log(counts) / temperature
            p = np.exp(logs - logs.max())
            words.append(choices[rng.choice(len(choices), p=p / p.sum())])
        return words[2:]

    return {t: [one(t) for _ in range(config.documents)] for t in config.temperatures}


def written_smollm2(config, seed: int) -> dict[float, Documents]:
    """Documents of the trained model, all from one prompt, for each temperature."""
    import jax.numpy as jnp

    from experiments.language_model import language_model
    from jattn.nn import generate

    model, tokenizer = language_model()
    prompt = jnp.asarray(tokenizer.encode(PROMPT))
    prompts = jnp.tile(prompt, (config.documents, 1))
    found = {}
    for number, temperature in enumerate(config.temperatures):
        key = jax.random.fold_in(jax.random.key(seed), number)
        tokens = generate(model, prompts, config.length, key=key, temperature=temperature)
        found[temperature] = [[str(token) for token in row] for row in np.asarray(tokens)]
    return found


def people(config, rng: np.random.Generator) -> tuple[Documents, Documents]:
    """Pieces of what people wrote: of two topics, each by itself."""
    from pydoc_data import topics

    def pieces(name: str) -> Documents:
        words = WORD.findall(topics.topics[name].lower())
        starts = np.arange(0, len(words) - config.length, config.length)
        chosen = rng.choice(starts, min(config.documents, len(starts)), replace=False)
        return [words[start : start + config.length] for start in chosen]

    return pieces("compound"), pieces("specialnames")


def measured(config, seed: int) -> dict[str, np.ndarray]:
    """Measures of each group of documents, and two tests of homogeneity."""
    rng = np.random.default_rng(seed)
    if config.writer == "smollm2":
        written = written_smollm2(config, seed)
    else:
        written = written_words(config, rng)
    one, other = people(config, rng)
    sets = [*written.values(), one]
    overlap = [th.within_group(th.jaccard(d, 2), np.zeros(len(d), int))[0] for d in sets]
    diversity = [th.vendi(1 - th.cosine_distance(d, 1)) for d in sets]
    distinct = [th.distinct(d, 2) for d in sets]

    def apart(first: Documents, second: Documents, n: int) -> np.ndarray:
        both = [*first, *second]
        labels = np.repeat([0, 1], [len(first), len(second)])
        orders = np.array([rng.permutation(len(both)) for _ in range(config.permutations)])
        return np.array(th.homogeneity_test(1 - th.jaccard(both, n), labels, orders)[::2])

    return {
        "overlap": np.array(overlap), "vendi": np.array(diversity), "distinct": np.array(distinct),
        "topics": apart(one, other, 1), "cold": more_alike(sets[0], one, rng, config.permutations),
    }  # fmt: skip


def more_alike(
    first: Documents, second: Documents, rng: np.random.Generator, permutations: int
) -> np.ndarray:
    """By how much more the first documents share bigrams than the second ones, and its p value.

    Labels of documents are permuted.
    """
    overlap = th.jaccard([*first, *second], 2)
    labels = np.repeat([0, 1], [len(first), len(second)])
    gap = lambda labels: -float(np.diff(th.within_group(overlap, labels))[0])
    null = np.array([gap(rng.permutation(labels)) for _ in range(permutations)])
    return np.array([gap(labels), (1 + (null >= gap(labels) - 1e-12).sum()) / (permutations + 1)])


def text(run: Run, config) -> list[Claim]:
    """Writes, measures, and compares over seeds."""
    sizes = config.text
    seeds = range(config.seed, config.seed + sizes.seeds)
    found = run.cached("text", lambda: _stacked([measured(sizes, seed) for seed in seeds]))
    figures.text(run, sizes, found)
    temperatures = np.array(sizes.temperatures)
    rises = lambda name: np.array(
        [spearmanr(temperatures, row[: len(temperatures)])[0] for row in found[name]]
    )
    because = "of four temperatures two neighbours may change places"
    p = found["topics"][:, 1]
    gap, cold = found["cold"].T
    return [
        PAPER.claim(
            "overlap-falls", "texts of one prompt share fewer bigrams as the temperature rises: "
            "rank correlation", -0.8, float(np.median(rises("overlap"))), "<=", 1e-9,
            because=because, seeds=rises("overlap"),
        ),
        PAPER.claim(
            "vendi-rises", "and the effective number of different texts grows", 0.8,
            float(np.median(rises("vendi"))), ">=", 1e-9, because=because, seeds=rises("vendi"),
        ),
        PAPER.claim(
            "distinct-rises", "and so does the share of different bigrams", 0.8,
            float(np.median(rises("distinct"))), ">=", 1e-9, because=because,
            seeds=rises("distinct"),
        ),
        PAPER.claim(
            "cold-homogeneous", f"at temperature {sizes.temperatures[0]} texts share more bigrams "
            "than those of people do: p of permuted documents", 0.01, float(np.median(cold)),
            "<=", seeds=cold, because="documents are few",
            note=f"by {float(np.mean(gap)):.3f}; essays of the group with a model, in the paper",
        ),
        PAPER.claim(
            "topics", "pieces on one topic are closer than pieces on two: p of permuted documents",
            0.01, float(np.median(p)), "<=", seeds=p, because="documents are few",
        ),
    ]  # fmt: skip


def _stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
