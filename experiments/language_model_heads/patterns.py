"""Random tokens read twice: heads that induce, find duplicates, look one back; and without them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import (
    LanguageModel,
    language_model,
    program,
    random_heads,
    top_heads,
)
from experiments.language_model_texts import STORY, losses, repeated, tokens_of
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.pattern_rates import pattern_rates
from jattn.lens.readouts import head_scores
from jattn.lens.sinks import importance
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

INDUCTION = Paper("arXiv 2209.11895", "In-context learning and induction heads")
RATES = Paper("EACL Findings 2026", "Attention-aware intervention for logical reasoning")
BEST = 5  # heads of a kind that are looked at


def patterns(run: Run, config) -> list[Claim]:
    """Scores heads on repeated tokens, silences the best, and as many random ones."""
    language = language_model(config.model)
    found = run.cached("patterns", lambda: measured(run, language, config))
    _draw(run, config, found)
    return claims_of(config, found)


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Scores `[L, h]`, maps of the best heads, and losses with heads silenced."""
    model = language.model
    layers, heads = model.config.layers, model.config.heads
    rng = np.random.default_rng(config.seed)
    vocabulary, period = model.config.vocab_size, config.period
    twice = jnp.asarray(repeated(rng, vocabulary, config.sequences, period))
    story = tokens_of(language.tokenizer, STORY)
    second = lambda *edits: float(losses(model, twice, edits)[:, period:].mean())
    plain = lambda *edits: float(losses(model, story, edits).mean())
    with run.progress("repeated tokens", 4 + config.draws) as advance:
        found = dict(_scores(model, twice, jnp.zeros(period)))
        advance(2)
        chosen = lens.ablate(top_heads(found["induction"], min(config.silenced, layers * heads)))
        clean, without = (second(), plain()), (second(chosen), plain(chosen))
        advance(2)
        random = []
        for _ in range(config.draws):
            edit = lens.ablate(random_heads(rng, layers, heads, config.silenced))
            random.append((second(edit), plain(edit)))
            advance(1)
    maps = _maps(model, twice[:1])
    best = {name: int(jnp.argmax(found[name])) for name in ("induction", "duplicate", "previous")}
    shown = {f"map_{name}": maps[index] for name, index in best.items()}
    return found | dict(clean=clean, without=without, random=np.array(random)) | shown


@program
def _scores(model: Llama, twice, copy):
    probs = lens.run(model, twice, record=("probs",))[1]["probs"]
    rates = jax.tree.map(lambda rate: rate.mean(1), pattern_rates(probs))
    first = importance(probs)[..., 0].mean(1)
    return head_scores(probs, len(copy)) | rates | {"first": first}


@program
def _maps(model: Llama, tokens):
    probs = lens.run(model, tokens, record=("probs",))[1]["probs"][:, 0]
    return probs.reshape(-1, *probs.shape[2:])


def claims_of(config, found: dict[str, np.ndarray]) -> list[Claim]:
    """Claims about scores, rates, and losses without heads."""
    order = {name: np.argsort(-found[name], axis=None) for name in ("induction", "duplicate")}
    copying = {int(i) for indices in order.values() for i in indices[:10]}
    diagonal = np.argsort(-found["diagonal"], axis=None)[:BEST]
    vertical = np.argsort(-found["vertical"], axis=None)[:BEST]
    heads = found["induction"].shape[1]
    place = lambda indices: ", ".join(str(divmod(int(i), heads)) for i in indices)
    rise = found["without"][0] - found["clean"][0]
    random = found["random"][:, 0] - found["clean"][0]
    story = found["without"][1] / found["clean"][1] - 1
    random_story = found["random"][:, 1] / found["clean"][1] - 1
    scores = found["induction"].ravel()[order["induction"][:BEST]]
    return [
        INDUCTION.claim(
            "induction",
            "Some heads induce: weight of the best on the token behind the same one before.",
            0.5,
            float(scores[0]),
            ">",
            because="more than half of its weight is what the head does",
            note=f"heads {place(order['induction'][:BEST])}: "
            + ", ".join(f"{x:.2f}" for x in scores),
        ),
        INDUCTION.claim(
            "induction-needed",
            f"Repeated tokens are predicted by these heads: rise of the loss without "
            f"{config.silenced} of them, over the largest rise of as many random ones.",
            2.0,
            float(rise / max(random.max(), 1e-6)),
            ">",
            because="twice as much is clearly more",
            note=f"loss {found['clean'][0]:.2f}, without {found['without'][0]:.2f}, random "
            + ", ".join(f"{x + found['clean'][0]:.2f}" for x in random),
        ),
        INDUCTION.claim(
            "induction-specific",
            "A story is predicted as well without them: relative rise of its loss.",
            0.02,
            float(story),
            "<",
            because="2 % is little",
            note="random " + ", ".join(f"{x:.3f}" for x in random_story),
        ),
        INDUCTION.claim(
            "induction-double",
            "Random heads harm the story more: smallest relative rise of its loss over that "
            "without induction heads.",
            float(story),
            float(random_story.min()),
            ">",
            because="it is that without induction heads in this run",
        ),
        RATES.claim(
            "diagonal-rates",
            f"Heads that induce or find duplicates have the highest diagonal rates: share of the "
            f"{BEST} highest that are among the ten best of either.",
            0.5,
            float(np.mean([int(i) in copying for i in diagonal])),
            ">",
            because="more than half are most",
            note=f"heads {place(diagonal)}, whose weight on the token before is "
            + ", ".join(f"{found['previous'].ravel()[i]:.2f}" for i in diagonal),
        ),
        RATES.claim(
            "vertical-rates",
            f"Vertical rates tell heads with sinks: weight of the {BEST} highest on the first "
            "token, over the mean of all.",
            1.0,
            float(found["first"].ravel()[vertical].mean() / found["first"].mean()),
            ">",
            because="1 is that of any head",
            note=f"heads {place(vertical)}",
        ),
    ]


def _draw(run: Run, config, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(2, 3, width=3.2, height=3.0)
    for column, name in enumerate(("induction", "duplicate", "previous")):
        axis = axes[0, column]
        image = axis.imshow(
            found[name], cmap="viridis", vmin=0, vmax=1, aspect="auto", origin="lower"
        )
        label(axis, "head", "layer", name)
        figure.colorbar(image, ax=axis, shrink=0.8)
        layer, head = divmod(int(found[name].argmax()), found[name].shape[1])
        below = axes[1, column]
        below.imshow(found[f"map_{name}"], cmap="viridis", vmin=0, vmax=1)
        label(below, "key", "query", f"layer {layer}, head {head}")
    run.save_figure(
        figure,
        "head_scores",
        "Random tokens read twice. Above: how much each head copies what came next, finds the same "
        "token, looks one back. Below: the map of the best of each.",
    )
    figure, axes = panels(1, 2, width=3.2)
    for axis, which, title in ((axes[0, 0], 0, "second copy"), (axes[0, 1], 1, "story")):
        values = [found["clean"][which], found["without"][which], *found["random"][:, which]]
        colors = [COLORS[6], COLORS[1], *[COLORS[0]] * len(found["random"])]
        axis.bar(np.arange(len(values)), values, color=colors)
        axis.set_xticks([0, 1, 2], ["all", "no induction", "no random"], rotation=25)
        label(axis, "", "loss, nats", title)
    run.save_figure(
        figure,
        "silenced_heads",
        f"The loss with all heads, without {config.silenced} induction heads, and without as many "
        "random ones, draw by draw.",
    )
