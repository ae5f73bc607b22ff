"""Retrieval heads: which copy the fact that is asked for, and which texts need them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import (
    LanguageModel,
    language_model,
    program,
    random_heads,
)
from experiments.language_model_heads.facts import Facts, facts
from experiments.language_model_texts import CODE, STORY, losses, repeated, tokens_of
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.attention_influence import (
    attention_influence,
    best_heads,
    retrieval_scores,
    uniform_heads,
)
from jattn.lens.readouts import head_scores
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2505.07293", "AttentionInfluence: weak-to-strong pretraining data selection")
KINDS = ("facts", "repeated", "story", "code")


def retrieval(run: Run, config) -> list[Claim]:
    """Scores heads on lists of facts; masks the best, and random ones, on four kinds of text."""
    language = language_model(config.model)
    found = run.cached("retrieval", lambda: measured(run, language, config))
    _draw(run, found)
    clean, zero, uniform = found["clean"], found["zero"], found["uniform"]
    rise = zero[0] - clean
    random = (zero[1:] - clean).mean(0)
    at = {kind: KINDS.index(kind) for kind in KINDS}
    influence = np.asarray(attention_influence(jnp.asarray(zero[0]), jnp.asarray(clean)))
    by_kind = lambda values: ", ".join(
        f"{kind} {value:.3f}" for kind, value in zip(KINDS, values, strict=True)
    )
    spread = (uniform[0] - clean) / np.maximum(np.abs((uniform[1:] - clean).mean(0)), 1e-6)
    heads = found["scores"].shape[1]
    order = np.argsort(-found["scores"], axis=None)[:7]
    scored = ", ".join(f"{divmod(int(i), heads)} {found['scores'].ravel()[i]:.2f}" for i in order)
    return [
        PAPER.claim(
            "retrieval-needed",
            "Masking the best 5 % of heads costs answers from a list more than masking random "
            "ones: ratio of rises of their loss.",
            3.0,
            float(rise[0] / max(random[0], 1e-6)),
            ">=",
            because="three times as much is specific",
            note=f"best heads {scored}; rises {by_kind(rise)}; random {by_kind(random)}",
        ),
        PAPER.claim(
            "retrieval-repeated",
            "Repeated text needs them: relative rise of its loss.",
            0.3,
            float(influence[at["repeated"]]),
            ">",
            because="30 % is much",
            note=f"influence {by_kind(influence)}",
        ),
        PAPER.claim(
            "retrieval-story",
            "A plain story does not: relative rise of its loss.",
            0.02,
            float(influence[at["story"]]),
            "<",
            because="2 % is little",
        ),
        PAPER.claim(
            "retrieval-ranks",
            "So influence tells text that needs what was read from text that does not: that of "
            "answers less that of the story.",
            0.0,
            float(influence[0] - influence[at["story"]]),
            ">",
            because="0 is no difference",
        ),
        PAPER.claim(
            "retrieval-uniform",
            "Uniform weights in place of zeros are as specific: ratio of rises of the loss of "
            "answers.",
            3.0,
            float(spread[0]),
            ">=",
            because="three times as much is specific; which of both masks is meant is not said",
        ),
        PAPER.claim(
            "retrieval-induction",
            "Retrieval heads are induction heads: share of the seven best among the ten that "
            "induce most.",
            0.5,
            float(np.isin(order, np.argsort(-found["induction"], axis=None)[:10]).mean()),
            ">",
            because="more than half are most",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Scores `[L, h]`; losses by kind of text, of the best heads masked and of random ones."""
    model, tokenizer = language
    layers, heads = model.config.layers, model.config.heads
    rng = np.random.default_rng(config.seed)
    asked = facts(tokenizer, rng, config.lists, config.facts)
    twice = jnp.asarray(repeated(rng, model.config.vocab_size, 1, config.period))
    texts = [twice[0], *(tokens_of(tokenizer, text)[0] for text in (STORY, CODE))]
    length = max(map(len, texts))
    together = jnp.stack([jnp.pad(text, (0, length - len(text))) for text in texts])
    real = jnp.arange(1, length) < jnp.array([len(text) for text in texts])[:, None]

    def row(edits):
        answers = losses(model, asked.tokens, edits)
        counts = asked.answer[:, 1:]
        first = (answers * counts).sum() / counts.sum()
        others = (losses(model, together, edits) * real).sum(1) / real.sum(1)
        return [float(first), *(float(loss) for loss in others)]

    with run.progress("retrieval", 3 + 2 * (1 + config.draws)) as advance:
        scores = _scores(model, asked)
        induction = _induction(model, twice, jnp.zeros(config.period))
        advance(2)
        clean = row([])
        advance(1)
        best = best_heads(scores, config.share)
        masks = [best] + [
            random_heads(rng, layers, heads, int(best.sum())) for _ in range(config.draws)
        ]
        zero, uniform = [], []
        for mask in masks:
            zero.append(row([lens.ablate(mask)]))
            advance(1)
            uniform.append(row([uniform_heads(mask)]))
            advance(1)
    return dict(
        scores=np.asarray(scores),
        induction=np.asarray(induction),
        clean=np.array(clean),
        zero=np.array(zero),
        uniform=np.array(uniform),
    )


@program
def _scores(model: Llama, asked: Facts):
    probs = jnp.moveaxis(lens.run(model, asked.tokens, record=("probs",))[1]["probs"], 1, 0)
    each = jax.vmap(retrieval_scores)(probs, asked.tokens, asked.answer, asked.needle)
    return each.mean(0)


@program
def _induction(model: Llama, twice, copy):
    probs = lens.run(model, twice, record=("probs",))[1]["probs"]
    return head_scores(probs, len(copy))["induction"]


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.6)
    image = axes[0, 0].imshow(
        found["scores"], cmap="viridis", vmin=0, vmax=1, aspect="auto", origin="lower"
    )
    figure.colorbar(image, ax=axes[0, 0], shrink=0.8)
    label(axes[0, 0], "head", "layer", "retrieval score")
    place = np.arange(len(KINDS))
    for number, (name, losses_) in enumerate(
        (
            ("all heads", found["clean"]),
            ("no retrieval heads", found["zero"][0]),
            ("no random heads", found["zero"][1:].mean(0)),
        )
    ):
        axes[0, 1].bar(place + 0.27 * (number - 1), losses_, 0.25, color=COLORS[number], label=name)
    axes[0, 1].set_xticks(place, KINDS)
    label(axes[0, 1], "", "loss, nats")
    run.save_figure(
        figure,
        "retrieval_heads",
        "Left: share of the answer that each head copies from the fact that is asked for. Right: "
        "the loss with these heads masked, and with random ones.",
    )
