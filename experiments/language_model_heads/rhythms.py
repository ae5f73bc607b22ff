"""Rhythms of attention on a story: where chunks begin, and which tokens anchor what follows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import LanguageModel, language_model, program
from experiments.language_model_texts import STORY, tokens_of
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.rhythm import fai, local_and_global, mean_distance, waad
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2510.13554", "Attention illuminates LLM reasoning: preplan and anchor")
ENDS = (".", "!", "?")


def rhythms(run: Run, config) -> list[Claim]:
    """Measures how far local heads look back and what global heads come back to."""
    language = language_model(config.model)
    found = run.cached("rhythms", lambda: measured(language))
    words = language.tokenizer.texts(found["tokens"].tolist())
    ends = np.array([word.strip() in ENDS for word in words])
    _draw(run, found, ends)
    distance, influence, entropy = found["waad"], found["fai"][1:], found["entropy"]
    highest = np.argsort(-distance)[: max(ends.sum(), 1)]
    anchors = np.argsort(-influence)[:5] + 1
    peaks = distance > np.quantile(distance[1:], 0.8)
    return [
        PAPER.claim(
            "chunks",
            "Local heads look back furthest where a chunk ends and the next is planned: share of "
            "the highest WAAD that are at ends of sentences.",
            0.5,
            float(ends[highest].mean()),
            ">",
            because=f"more than half are most; {ends.mean():.2f} of the tokens are ends",
            note=", ".join(f"{words[i]!r} {distance[i]:.2f}" for i in highest),
        ),
        PAPER.claim(
            "chunks-uncertain",
            "There the next token is less certain: its entropy at the highest fifth of WAAD over "
            "that elsewhere.",
            1.5197,
            float(entropy[peaks].mean() / entropy[1:][~peaks[1:]].mean()),
            ">=",
            where="51.97 % more there, of a reasoning model",
        ),
        PAPER.claim(
            "anchors",
            "Global heads come back to ends of sentences: their mean FAI over the median, the "
            "first token aside.",
            2.0,
            float(influence[ends[1:]].mean() / np.median(influence[influence > 0])),
            ">",
            because="twice as much is clearly more",
            note=", ".join(f"{words[i]!r} {found['fai'][i]:.3f}" for i in anchors)
            + f"; first token {found['fai'][0]:.2f}",
        ),
    ]


def measured(language: LanguageModel) -> dict[str, Any]:
    """WAAD, FAI and entropy of the next token, `[t]`; mean distances `[L, h]`."""
    tokens = tokens_of(language.tokenizer, STORY)
    return dict(_measured(language.model, tokens)) | {"tokens": tokens[0]}


@program
def _measured(model: Llama, tokens):
    logits, found = lens.run(model, tokens, record=("probs",))
    probs = found["probs"][:, 0]
    distance = mean_distance(probs)
    local, distant = local_and_global(distance)
    mean = lambda mask: (probs * mask[..., None, None]).sum((0, 1)) / mask.sum()
    logs = jax.nn.log_softmax(logits[0], -1)
    return dict(
        waad=waad(mean(local)),
        fai=fai(mean(distant)),
        entropy=-(jnp.exp(logs) * logs).sum(-1),
        distance=distance,
    )


def _draw(run: Run, found: dict[str, np.ndarray], ends: np.ndarray) -> None:
    figure, axes = panels(2, 1, width=7.0, height=1.9, sharex=True)
    for axis, name, title in zip(
        axes[:, 0], ("waad", "fai"), ("how far local heads look back", "weight of later tokens"),
        strict=True,
    ):  # fmt: skip
        values = np.where(np.arange(len(ends)) > 0, found[name], np.nan)
        axis.plot(values, color=COLORS[0])
        for place in np.flatnonzero(ends):
            axis.axvline(place, color=COLORS[1], linewidth=0.8, linestyle=":")
        label(axis, "token" if name == "fai" else "", name.upper(), title)
    run.save_figure(figure, "rhythms", "The story, token by token; dotted, the ends of sentences.")
