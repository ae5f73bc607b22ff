"""Task embeddings injected head by head (SITE), on countries and capitals, and capital letters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.language_model import (
    LanguageModel,
    Texts,
    batches_of,
    first_tokens,
    language_model,
    last_of,
    minimizer,
    next_logits,
    reads_at_last,
    texts_of,
    whole,
)
from experiments.language_model_steering.words import CAPITAL_LETTERS, CAPITALS
from experiments.plots import heat_map, label, panels
from jattn import lens
from jattn.lens.methods.soft_injection import soft_injection
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2507.20906", "Soft injection of task embeddings")
TASKS = {"capitals": CAPITALS, "letters": CAPITAL_LETTERS}


def injection(run: Run, config) -> list[Claim]:
    """Trains how much of two tasks' embeddings each head takes, and swaps the embeddings."""
    language = language_model(config.model)
    found = run.cached("injection", lambda: measured(run, language, config))
    _draw(run, found)
    claims = []
    for row, task in enumerate(TASKS):
        plain, own = float(found["plain"][row]), float(found["loss"][row, row])
        other = float(found["loss"][row, 1 - row])
        claims += [
            PAPER.claim(
                f"site-{task}",
                f"{task}: injection takes 30 % off the loss without demonstrations, new words.",
                0.7 * plain,
                own,
                "<=",
                because="it is 0.7 of the loss without injection in this run",
                note=f"{plain:.2f} without, {found['few'][row]:.2f} with demonstrations instead",
            ),
            PAPER.claim(
                f"site-{task}-transfer",
                f"{task}: the task's own embedding does better than the other task's: loss.",
                other,
                own,
                "<",
                because="it is the other embedding's in this run",
            ),
            PAPER.claim(
                f"site-{task}-demonstrations",
                f"{task}: injection answers at least as well as demonstrations: accuracy.",
                float(found["few_right"][row]),
                float(found["right"][row]),
                ">=",
                because="it is the accuracy with demonstrations in this run; the paper has 10 to "
                "14 points more",
            ),
        ]
    alpha = found["alpha"]
    ends = float(((alpha < 0.1) | (alpha > 0.9)).mean())
    claims.append(
        PAPER.claim(
            "site-ends",
            "Most heads end near 0 or 1: share of alphas below 0.1 or above 0.9.",
            0.8,
            ends,
            ">=",
            where="80 to 90 % there",
            note=f"mean alpha {alpha.mean():.2f}",
        )
    )
    return claims


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Losses `[task, embedding]` on held-out words, and alphas `[task, L, h]`."""
    model, tokenizer = language
    settings, rng = config.injection, np.random.default_rng(config.seed)
    train = minimizer(_loss, optax.adam(settings.learning_rate), together=True)
    zeros = jnp.zeros((len(TASKS), model.config.layers, model.config.heads))
    tasks, batches = [], []
    with run.progress("injection", 1 + len(TASKS)) as advance:
        for pairs in TASKS.values():
            tasks.append(_Task(language, pairs, settings, rng))
            advance(1)
        for task in tasks:
            data = task.encoded(task.seen)
            batches.append(batches_of(rng, data, settings.steps, settings.batch_size))
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
        embeddings = jnp.stack([task.embedding for task in tasks])
        thetas = train(model, zeros, embeddings, stacked)[0]
        advance(1)
    rows = []
    for task, theta in zip(tasks, thetas, strict=True):
        tokens, answers = task.encoded(task.unseen)
        texts = Texts(jnp.asarray(tokens), jnp.full(len(tokens), tokens.shape[1] - 1))
        under = lambda *edits, texts=texts: next_logits(model, texts, edits)
        length = tokens.shape[1]
        injected = [under(soft_injection(theta, t.embedding, length)) for t in tasks]
        few = next_logits(model, texts_of(tokenizer, task.prompts(task.unseen)))
        own = injected[tasks.index(task)]
        row = dict(
            plain=_mean_loss(under(), answers),
            few=_mean_loss(few, answers),
            few_right=(few.argmax(-1) == answers).mean(),
            right=(own.argmax(-1) == answers).mean(),
            loss=jnp.stack([_mean_loss(logits, answers) for logits in injected]),
            alpha=1 / (1 + jnp.exp(-theta)),
        )
        rows.append(row)
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


class _Task:
    """Words that are seen in training, others, and the mean read behind demonstrations."""

    def __init__(self, language: LanguageModel, pairs: dict[str, str], settings, rng):
        model, self.tokenizer = language
        known = set(whole(self.tokenizer, list(pairs))) & {
            a for a, b in pairs.items() if whole(self.tokenizer, [b])
        }
        words = [(a, b) for a, b in pairs.items() if a in known]
        rng.shuffle(words)
        half = len(words) // 2
        self.seen, self.unseen = words[:half], words[half:]
        self.count, self.rng = settings.demonstrations, rng
        asked = [self.seen[i % half] for i in range(settings.prompts)]
        reads = reads_at_last(model, texts_of(self.tokenizer, self.prompts(asked)))
        self.embedding = reads.mean(0)

    def prompts(self, asked) -> list[str]:
        """Questions behind demonstrations with other words."""
        texts = []
        for word, _ in asked:
            others = [pair for pair in self.seen if pair[0] != word]
            shown = [others[i] for i in self.rng.permutation(len(others))[: self.count]]
            lines = [f" {a} -> {b}" for a, b in shown]
            texts.append("\n".join([*lines, f" {word} ->"]))
        return texts

    def encoded(self, words) -> tuple[np.ndarray, np.ndarray]:
        """Questions without any demonstration, and the first tokens of their answers."""
        tokens = texts_of(self.tokenizer, [f" {word} ->" for word, _ in words]).tokens
        return np.asarray(tokens), np.asarray(first_tokens(self.tokenizer, [b for _, b in words]))


def _mean_loss(logits, answers):
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(answers)).mean()


def _loss(model, theta, embedding, batch):
    tokens, answers = batch
    edits = [soft_injection(theta, embedding, tokens.shape[1])]
    return _mean_loss(lens.run(model, tokens, edits=edits, at=last_of(tokens))[0], answers)


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 1 + len(TASKS), width=3.0)
    for axis, name, alpha in zip(axes[0], TASKS, found["alpha"], strict=False):
        axis.imshow(alpha.T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        label(axis, "layer", "head", f"alpha, {name}")
    table = np.concatenate([found["loss"], found["plain"][:, None], found["few"][:, None]], 1)
    heat_map(axes[0, -1], table, title="loss")
    names = [f"inject {task}" for task in TASKS]
    axes[0, -1].set_xticks(range(4), [*names, "nothing", "show"], rotation=30, fontsize=7)
    axes[0, -1].set_yticks(range(len(TASKS)), list(TASKS), fontsize=7)
    run.save_figure(
        figure,
        "injection",
        "How much of a task's embedding each head takes after training, and the loss on held-out "
        "words by what is injected; nothing; demonstrations shown instead.",
    )
