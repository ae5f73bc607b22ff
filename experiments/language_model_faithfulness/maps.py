"""Maps that are changed: weight of sinks (VAR), of what the question looks up (GIFT), of chosen
tokens (selective emphasis), of what was said last (LocoRE).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import LanguageModel, language_model, program
from experiments.language_model_faithfulness.questions import (
    ANSWER,
    FACT,
    FACTS,
    STORY,
    VALUE,
    Questions,
    log_probs,
    of_answers,
    questions,
)
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.edits import At
from jattn.lens.methods.gaze_shift import (
    gaze_saliency,
    gaze_shift_amplification,
    gaze_shifts,
    top_half,
)
from jattn.lens.methods.saliency import locore
from jattn.lens.methods.token_emphasis import emphasised_tokens, head_sensitivity, token_emphasis
from jattn.lens.methods.visual_redistribution import redistribution_edit
from jattn.lens.readouts import massive_dims, token_losses
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

SINKS = Paper("arXiv 2503.03321", "Visual attention sink")
SHIFTS = Paper("arXiv 2510.22067", "GIFT: gaze shift-guided cross-modal fusion")
EMPHASIS = Paper("arXiv 2501.12206", "Fixing imbalanced attention")
SALIENCY = Paper("arXiv 2601.20279", "Hallucination begins where saliency drops")


def maps(run: Run, config) -> list[Claim]:
    """Changes maps in every row or the last one, and asks again."""
    language = language_model(config.model)
    found = run.cached("maps", lambda: measured(run, language, config))
    _draw(run, config, found)
    plain = found["plain"]
    change = lambda name, *at: float((found[name][at] - plain).mean())
    emphasis, story = found["emphasis"].mean(-1), found["story"]
    shown = lambda values: ", ".join(f"{x:.2f}" for x in values)
    gentle, strong = config.betas[0], config.betas[-1]
    return [
        SINKS.claim(
            "var-mass",
            f"VAR leaves {config.keep:g} on sinks: the facts get more weight of all rows behind "
            "them, mean over layers and heads.",
            float(found["mass"][0]),
            float(found["mass"][1]),
            ">",
            because="it is their weight without in this run",
        ),
        SINKS.claim(
            "var-answers",
            "VAR makes the right name likelier: mean change of log p.",
            0.0,
            change("redistributed"),
            ">",
            because="no change is 0",
            note=f"rises in {(found['redistributed'] > plain).mean():.2f} of the questions",
        ),
        SHIFTS.claim(
            "gift-saliency",
            "GIFT marks the name that is asked for above the median of the facts: share of "
            "questions.",
            0.5,
            float(found["marked"].mean()),
            ">",
            because="half of all tokens are above the median",
        ),
        SHIFTS.claim(
            "gift-fact",
            "The largest weight of GIFT is in the fact that is asked for: share of questions.",
            1 / FACTS,
            float(found["looked_up"].mean()),
            ">",
            because=f"there are {FACTS} facts",
            note="weights mark the animal that the question repeats, more than its name",
        ),
        SHIFTS.claim(
            "gift-answers",
            "GIFT makes the right name likelier: mean change of log p.",
            0.0,
            change("amplified"),
            ">",
            because="no change is 0",
            note=f"rises in {(found['amplified'] > plain).mean():.2f} of the questions",
        ),
        EMPHASIS.claim(
            "emphasis-answers",
            "Emphasis of what the facts' last token looks at makes the right name likelier: mean "
            "change of log p, best strength.",
            0.0,
            float((emphasis - plain.mean()).max()),
            ">",
            because="no change is 0",
            note=f"log p {plain.mean():.2f}; by strength {shown(emphasis)}",
        ),
        EMPHASIS.claim(
            "emphasis-damage",
            "The strongest emphasis hurts other text more than the weakest: loss of a story.",
            float(story[1]),
            float(story[-1]),
            ">",
            because="it is the weakest strength's in this run",
            note=f"{story[0]:.3f} without; by strength {shown(story[1:])}",
        ),
        SALIENCY.claim(
            "locore-answers",
            f"LocoRE at beta {gentle:g} makes the right name likelier: mean change of log p.",
            0.0,
            change("locore", 0),
            ">",
            because="no change is 0",
            note=f"rises in {(found['locore'][0] > plain).mean():.2f} of the questions",
        ),
        SALIENCY.claim(
            "locore-too-much",
            f"At beta {strong:g} it does worse than at {gentle:g}: mean log p.",
            float(found["locore"][0].mean()),
            float(found["locore"][-1].mean()),
            "<",
            because="it is the smaller beta's in this run; the paper's model breaks down there",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """log p of right names by intervention and question; the facts' weight; a story's losses."""
    model, tokenizer = language
    some = questions(language, config.questions, np.random.default_rng(config.seed))
    depth = model.config.layers
    at_depth = lambda low, high: (
        (jnp.arange(depth) >= low * depth) & (jnp.arange(depth) < high * depth)
    )
    after = lambda *edits: of_answers(some, log_probs(language, some, edits))
    inside = some.context()
    with run.progress("maps", 5 + len(config.emphasis) + len(config.betas)) as advance:

        def done(value):
            advance(1)
            return value

        plain = done(after())
        # The authors leave the first two layers and the last one alone.
        dims = _massive(model, some.texts.tokens)
        layers = (jnp.arange(depth) >= 2) & (jnp.arange(depth) < depth - 1)
        edit = redistribution_edit(layers, inside, dims, keep=config.keep)
        mass = done([float(_weight(model, some, inside, edits)) for edits in ((), (edit,))])
        redistributed = done(after(edit))
        # Layers at the depths of the paper's 7B models.
        weights = _lookups(model, some, int(0.35 * depth))
        value = FACT * np.asarray(some.asked) + VALUE
        of_fact = np.asarray(weights)
        of_fact = np.stack([of_fact[:, FACT * n : FACT * (n + 1) - 1] for n in range(FACTS)], 1)
        looked_up = of_fact.max(2).argmax(1) == np.asarray(some.asked)
        marked = np.asarray(weights)[np.arange(len(value)), value - 1] > np.median(weights, 1)
        amplified = done(after(_amplified(at_depth(0.375, 0.7), weights, some.length)))
        row = _last_row_of_facts(model, some.texts.tokens, inside)
        tokens, sensitivity = done(row)
        sensitivity = jnp.where((jnp.arange(depth) >= 2)[:, None], sensitivity, 0.0)
        story = jnp.asarray(tokenizer.encode(STORY))[None]
        losses = [float(_loss(model, story, ()))]
        emphasis = []
        for strength in config.emphasis:
            edit = token_emphasis(tokens, sensitivity, alpha=strength, beta=0.0)
            emphasis.append(after(edit))
            first = jnp.isin(jnp.arange(story.shape[1]), jnp.flatnonzero(tokens))
            edit = token_emphasis(first, sensitivity, alpha=strength, beta=0.0)
            losses.append(done(float(_loss(model, story, (edit,)))))
        said = some.length - len(tokenizer.encode(ANSWER.format("dog")))
        recent = [done(after(locore(some.length, start=said, beta=beta))) for beta in config.betas]
    found = dict(plain=plain, mass=mass, redistributed=redistributed, marked=marked)
    found |= dict(looked_up=looked_up)
    found |= dict(amplified=amplified, emphasis=emphasis, story=losses, locore=recent)
    return {name: np.asarray(value) for name, value in found.items()}


@program
def _massive(model: Llama, tokens):
    """The massive channels of a middle layer."""
    found = lens.run(model, tokens, record=("resid_post",))[1]["resid_post"]
    return massive_dims(found[len(found) // 2])


@program
def _weight(model: Llama, some: Questions, inside, edits):
    probs = lens.run(model, some.texts.tokens, edits=edits, record=("probs",))[1]["probs"]
    return jnp.where(inside, probs[..., FACTS * FACT :, :], 0).sum(-1).mean()


@program
def _lookups(model: Llama, some: Questions, layer):
    """GIFT's w of every question on the facts but the first token, `[n, keys]`."""
    probs = lens.run(model, some.texts.tokens, record=("probs",))[1]["probs"][layer]
    span = jnp.arange(1, FACTS * FACT)
    rows = jnp.arange(FACTS * FACT + 1, some.length)

    def one(maps):
        shifts = gaze_shifts(maps, rows, span)  # [h, rows, keys]
        kept = top_half(shifts.sum((-2, -1)))
        return gaze_saliency(jnp.where(kept[:, None, None], shifts, 0).sum(0) / kept.sum())

    return jax.vmap(one)(probs)


def _amplified(layers, weights, length: int) -> At:
    """The edit of `gaze_shift_amplification` in some layers, for every question its own weights."""
    spans = jnp.arange(1, FACTS * FACT)[None], jnp.arange(FACTS * FACT, length)[None]
    return At("probs", _amplify, (layers, weights[None], *spans))


def _amplify(probs, data, seen):
    on, weights, span, query = data
    amplified = jax.vmap(lambda p, w: gaze_shift_amplification(p, w, span, query))(probs, weights)
    return jnp.where(on, amplified, probs)


@program
def _last_row_of_facts(model: Llama, tokens, inside):
    """Tokens to emphasise, and the sensitivity of heads `[L, h]`, means over questions."""
    probs = lens.run(model, tokens, record=("probs",))[1]["probs"].mean(1)  # [L, h, t, s]
    summary = probs[..., FACTS * FACT - 1, :]
    chosen = emphasised_tokens(summary.mean((0, 1)), inside)
    return chosen, head_sensitivity(probs[..., -1, :], inside)


@program
def _loss(model: Llama, tokens, edits):
    return token_losses(lens.run(model, tokens, edits=edits)[0], tokens).mean()


def _draw(run: Run, config, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.6)
    rows = {"VAR": found["redistributed"], "GIFT": found["amplified"]}
    rows |= {f"emphasis {a:g}": x for a, x in zip(config.emphasis, found["emphasis"], strict=True)}
    rows |= {f"LocoRE {b:g}": x for b, x in zip(config.betas, found["locore"], strict=True)}
    for number, (name, values) in enumerate(rows.items()):
        moved = values - found["plain"]
        axes[0, 0].bar(number, moved.mean(), color=COLORS[number % len(COLORS)], label=name)
        axes[0, 0].errorbar(number, moved.mean(), moved.std() / len(moved) ** 0.5, color="black")
    axes[0, 0].axhline(0, color="#999999", linewidth=1)
    axes[0, 0].set_xticks(range(len(rows)), list(rows), rotation=40, ha="right", fontsize=7)
    label(axes[0, 0], "", "change of log p of the right name", legend=False)
    axes[0, 1].plot([0, *config.emphasis], found["story"], color=COLORS[0], marker="o")
    label(axes[0, 1], "strength of emphasis", "loss of a story, nats")
    run.save_figure(
        figure,
        "maps",
        "Left: what changing maps does to log p of the right name, means and standard errors over "
        "questions. Right: what emphasis costs on another text.",
    )
