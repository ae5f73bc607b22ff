"""Heads that read the context: reinforced (VHR), turned (gaze heads), or given a bias (AAI)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import (
    LanguageModel,
    language_model,
    last_of,
    program,
    random_heads,
    top_heads,
)
from experiments.language_model_faithfulness.questions import (
    FACT,
    FACTS,
    Questions,
    log_probs,
    of_answers,
    questions,
)
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.edits import HeadAffine, LogitBias
from jattn.lens.methods.gaze_heads import gaze_scores, steer_to
from jattn.lens.methods.head_divergence import reinforce
from jattn.lens.methods.pattern_rates import pattern_rates, span_bias, span_products
from jattn.lens.patching import over_edits
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

REINFORCED = Paper("arXiv 2412.13949", "Vision-aware head divergence")
GAZE = Paper("arXiv 2606.14703", "Gaze heads")
RULES = Paper("Findings of EACL 2026", "Attention-aware intervention for logical reasoning")
MOST = 0.8
SIDE_BY_SIDE = 9  # questions at a time


def heads(run: Run, config) -> list[Claim]:
    """Changes heads that read the context, and as many random ones."""
    language = language_model(config.model)
    found = run.cached("heads", lambda: measured(run, language, config))
    _draw(run, config, found)
    rises = (found["reinforced"] > found["plain"]).mean(-1)  # [factors]
    random = (found["reinforced_random"] > found["plain"]).mean((0, 2))
    turned = (found["turned"] > 0).mean()
    turned_further = (found["turned"] > found["turned_random"].mean(0)).mean()
    best = int(found["everywhere"].mean(-1).argmax())
    by = lambda values: ", ".join(
        f"{c:g}: {x:.2f}" for c, x in zip(config.factors, values, strict=True)
    )
    change = lambda name: float((found[name] - found["plain"]).mean())
    return [
        REINFORCED.claim(
            "vhr-random",
            "Reinforcing heads that depend on the context makes the right name likelier in more "
            "questions than reinforcing random ones: share, mean of factors.",
            float(random.mean()),
            float(rises.mean()),
            ">",
            because="it is that of random heads in this run",
            note=f"by factor {by(rises)}; random {by(random)}",
        ),
        GAZE.claim(
            "gaze-turned",
            f"Turning the {config.count} heads that look at the fact in question to another one "
            "makes that one's name likelier: share of questions.",
            MOST,
            float(turned),
            ">=",
            because="four of five are most; the paper redirects 83.1 % of answers",
            note=f"mean change of log p {found['turned'].mean():.2f}",
        ),
        GAZE.claim(
            "gaze-random",
            "It does so more than random heads: share of questions.",
            MOST,
            float(turned_further),
            ">=",
            because="four of five are most",
            note=f"mean change of log p of random heads {found['turned_random'].mean():.2f}",
        ),
        RULES.claim(
            "aai-bias",
            f"A bias from the question to its fact in the {config.count} most diagonal heads "
            "makes the right name likelier than in random heads: mean change of log p.",
            float(np.mean(found["biased_random"] - found["plain"])),
            change("biased"),
            ">",
            because="it is that of random heads in this run",
        ),
        GAZE.claim(
            "selection-matters",
            "The same bias on the right fact does more in the heads that look there than in all "
            f"heads: mean change of log p at bias {config.biases[best]:g}.",
            float((found["everywhere"][best] - found["plain"]).mean()),
            float((found["selected"][best] - found["plain"]).mean()),
            ">",
            because="it is that of all heads in this run",
            note=f"log p {found['plain'].mean():.2f} as it is",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """log p of right names, or its changes, by intervention and question."""
    model = language.model
    rng = np.random.default_rng(config.seed)
    chosen_by = questions(language, config.chosen_by, rng)
    some = questions(language, config.questions, rng)
    shape = model.config.layers, model.config.heads
    names = log_probs(language, some)
    plain = of_answers(some, names)
    after = lambda *edits: of_answers(some, log_probs(language, some, edits))
    random = [random_heads(rng, *shape, config.count) for _ in range(config.draws)]
    total = 2 + len(config.factors) * (1 + config.draws) + 2 * (1 + config.draws)
    with run.progress("heads", total + 2 * len(config.biases)) as advance:

        def done(value):
            advance(1)
            return value

        looks, diagonal, products = done(_scores(language, chosen_by))
        gazing, reasoning = top_heads(looks, config.count), top_heads(diagonal, config.count)
        reinforced = [done(_reinforced(language, some, factor)) for factor in config.factors]
        at_random = []
        for _ in range(config.draws):
            half = np.argsort(rng.random(shape), axis=1) < -(-shape[1] // 2)
            last = (jnp.arange(some.length) == some.length - 1)[None, None]
            scale = lambda factor, half=half: jnp.where(half[..., None], factor - 1, 0.0)
            edits = [HeadAffine(scale(factor), where=last) for factor in config.factors]
            at_random.append([done(after(edit)) for edit in edits])
        other = (some.asked + 1) % FACTS
        target = lambda heads: _turned(heads, some, other, config.turn)
        row = np.arange(len(plain)), np.asarray(other)
        moved = lambda heads: done(log_probs(language, some, [target(heads)])[row] - names[row])
        turned, turned_random = moved(gazing), [moved(heads) for heads in random]
        rows = jnp.arange(some.length) >= FACTS * FACT
        bias = lambda heads, value: done(after(_to_fact(some, heads, rows, value)))
        biased = bias(reasoning, products)
        biased_random = [bias(heads, products) for heads in random]
        all_, ones = jnp.ones(shape, bool), jnp.ones(shape)
        everywhere = [bias(all_, strength * ones) for strength in config.biases]
        selected = [bias(gazing, strength * ones) for strength in config.biases]
    found = dict(plain=plain, reinforced=reinforced, reinforced_random=at_random, turned=turned)
    found |= dict(turned_random=turned_random, biased=biased, biased_random=biased_random)
    found |= dict(everywhere=everywhere, selected=selected, looks=looks, diagonal=diagonal)
    return {name: np.asarray(value) for name, value in found.items()}


def _scores(language: LanguageModel, some: Questions):
    """Of all heads: weight on the fact in question, diagonal rate, median product from there."""
    regions = jnp.stack([some.fact(jnp.full_like(some.asked, n)) for n in range(FACTS)], 1)
    return _scores_of(language.model, some.texts.tokens, some.asked, regions)


@program
def _scores_of(model: Llama, tokens, asked, regions):
    found = lens.run(model, tokens, record=("probs", "logits"))[1]
    last = jnp.moveaxis(found["probs"][..., -1, :], 1, 0)  # [n, L, h, s]
    each = [last[number::FACTS] for number in range(FACTS)]
    looks = jnp.stack(
        [
            gaze_scores(jnp.stack(question), jnp.stack([regions[i]] * FACTS))
            for i, question in enumerate(zip(*each, strict=True))
        ]
    ).mean(0)
    diagonal = pattern_rates(found["probs"])["diagonal"].mean(1)
    rows = jnp.arange(tokens.shape[1]) >= FACTS * FACT
    product = lambda logits, keys: span_products(logits, rows, keys)
    mine = jnp.take_along_axis(regions, asked[:, None, None], axis=1)[:, 0]
    products = jax.vmap(product, in_axes=(1, 0))(found["logits"], mine).mean(0)
    return looks, diagonal, products


def _turned(heads, some: Questions, other, strength: float) -> LogitBias:
    """`steer_to` for every question: its fact is another one's, or none is."""
    edit = lambda target, rest: steer_to(heads, target, rest, strength).bias
    target = some.fact(other)
    bias = jax.vmap(edit, in_axes=(0, 0), out_axes=1)(target, some.context() & ~target)
    return LogitBias(bias[:, :, 0])


def _to_fact(some: Questions, heads, rows, value) -> LogitBias:
    """`span_bias` for every question, from its rows to the fact that it asks for."""
    edit = lambda keys: span_bias(heads, rows, keys, value).bias
    bias = jax.vmap(edit, out_axes=1)(some.fact(some.asked))
    return LogitBias(bias[:, :, 0])


def _reinforced(language: LanguageModel, some: Questions, factor: float) -> np.ndarray:
    logs = _reinforced_of(language.model, some.texts.tokens, some.answers, reinforce(factor))
    return np.asarray(logs)


@program
def _reinforced_of(model: Llama, tokens, answers, edit):
    """VHR: each question beside itself without the facts, padded in front."""
    length = tokens.shape[1]
    mask = jnp.stack([jnp.ones(length, bool), jnp.arange(length) >= FACTS * FACT])

    def one(given):
        text, answer = given
        both = jnp.stack([text, text])
        logits = lens.run(model, both, edits=[edit], mask=mask, at=last_of(both))[0]
        return jax.nn.log_softmax(logits[0])[answer]

    return over_edits(one, (tokens, answers), batch_size=SIDE_BY_SIDE)


def _draw(run: Run, config, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 3, width=3.0)
    for axis, name in ((axes[0, 0], "looks"), (axes[0, 1], "diagonal")):
        axis.imshow(found[name].T, cmap="Blues", aspect="auto")
        title = {"looks": "weight on the fact in question", "diagonal": "diagonal rate"}[name]
        label(axis, "layer", "head", title)
    bars = {
        "VHR": found["reinforced"].max(0) - found["plain"],
        "AAI": found["biased"] - found["plain"],
        "AAI, random": (found["biased_random"] - found["plain"]).mean(0),
        "gazing": found["selected"][0] - found["plain"],
        "all heads": found["everywhere"][0] - found["plain"],
    }
    for number, values in enumerate(bars.values()):
        axes[0, 2].bar(number, values.mean(), color=COLORS[number])
        axes[0, 2].errorbar(number, values.mean(), values.std() / len(values) ** 0.5, color="black")
    axes[0, 2].set_xticks(range(len(bars)), list(bars), rotation=40, fontsize=7)
    label(axes[0, 2], "", "change of log p of the right name")
    run.save_figure(
        figure,
        "heads",
        "Heads by what they look at, and what changing them does to log p of the right name "
        "(VHR: each question's best factor); means and standard errors over questions.",
    )
