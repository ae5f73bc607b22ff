"""Where sinks are, by layer and token: two phases, and what tokens that draw weight share."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.language_model import LanguageModel, language_model, program
from experiments.language_model_texts import TEXTS, tokens_of
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.content_filter import noncontent_share
from jattn.lens.methods.secondary_sinks import find_sinks
from jattn.lens.methods.sink_report import sink_report
from jattn.lens.readouts import massiveness
from jattn.lens.sinks import importance
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

SECONDARY = Paper("arXiv 2512.22213", "Secondary attention sinks")
VISUAL = Paper("arXiv 2503.03321", "See what you are told: visual attention sink")
SURVEY = Paper("2026", "Attention sinks: a survey of use, interpretation and mitigation")
FILTER = Paper("2026", "Attention sinks in multilingual neural machine translation")
MASSIVE = 20.0  # of phi; tokens above are sinks in the paper
SECONDARY_ALPHA = 0.15


def phases(run: Run, config) -> list[Claim]:
    """Reads all texts, and finds their sinks."""
    language = language_model(config.model)
    with run.progress("texts", len(TEXTS)) as advance:
        found = {}
        for name, text in TEXTS.items():
            found[name] = run.cached(f"sinks_{name}", lambda text=text: measured(language, text))
            advance(1)
    _draw(run, config, found)
    return claims_of(config, language, found)


def measured(language: LanguageModel, text: str) -> dict[str, Any]:
    """Statistics of one text, by layer and token."""
    tokens = tokens_of(language.tokenizer, text)
    words = language.tokenizer.texts(tokens[0].tolist())
    content = np.array([any(c.isalpha() for c in word) for word in words])
    content[0] = False
    found = _statistics(language.model, tokens, jnp.asarray(content))
    return found | {"tokens": tokens[0]}


@program
def _statistics(model: Llama, tokens, content):
    sites = ("probs", "resid_pre", "mlp_out", "k", "v")
    found = lens.run(model, tokens, record=sites)[1]
    probs, stream = found["probs"][:, 0], found["resid_pre"][:, 0]
    report = sink_report(found["probs"], found["resid_pre"], found["k"], found["v"])
    sinks = find_sinks(probs, stream, threshold=SECONDARY_ALPHA)
    return dict(
        alpha=importance(probs).mean(1),
        first=importance(probs)[..., 0],
        sink_rate=report["sink_rate"],
        kept=report["kept"],
        key_norm=report["key_norm"],
        value_norm=report["value_norm"],
        phi=massiveness(stream),
        written=jnp.linalg.norm(found["mlp_out"][:, 0], axis=-1),
        noncontent=noncontent_share(probs, content).mean(-1),
        **{f"sink_{name}": value for name, value in sinks._asdict().items()},
    )


def claims_of(
    config, language: LanguageModel, found: dict[str, dict[str, np.ndarray]]
) -> list[Claim]:
    """Claims about the story, with all texts in notes."""
    layers = language.model.config.layers
    middle, between, late = (_span(span, layers) for span in _spans(config))
    story = found["story"]
    alpha = story["alpha"]
    behind = alpha[middle, 1:].max(0)
    token = int(behind.argmax()) + 1
    text = language.tokenizer.texts([int(story["tokens"][token])])[0]
    first = alpha[:, 0]
    by_text = lambda of: ", ".join(f"{name} {of(one):.2f}" for name, one in found.items())
    strongest = lambda one: one["alpha"][middle, 1:].max()
    heavy = np.concatenate([one["alpha"][one["phi"] > MASSIVE] for one in found.values()])
    light = np.concatenate([one["alpha"][one["phi"] <= MASSIVE] for one in found.values()])
    return [
        SECONDARY.claim(
            "secondary",
            f"A token behind the first draws attention in layers {middle.start} to "
            f"{middle.stop - 1} of the story: largest mean weight of a layer.",
            SECONDARY_ALPHA,
            float(behind.max()),
            ">",
            because="a few times what a hundred tokens have each on average",
            note=f"token {token}, {text!r}; texts: {by_text(strongest)}",
        ),
        SECONDARY.claim(
            "secondary-direction",
            "Its residual stream points where the first token's does: cosine where it draws most.",
            0.9,
            float(story["sink_cosine"][token]),
            ">",
            because="1 is the same direction",
            note=f"norm {story['sink_norm'][token]:.0f}, born in layer "
            f"{story['sink_birth'][token]}, lives {story['sink_lifetime'][token]} layers",
        ),
        SECONDARY.claim(
            "secondary-written",
            "What the MLP before the middle layers writes decides which tokens these are: rank "
            "correlation of its norm and the largest weight, over all texts' tokens but the first.",
            0.5,
            _mlp_decides(middle, found),
            ">",
            because="0 is none, 1 a perfect one",
        ),
        SECONDARY.claim(
            "primary-weaker",
            "The first token draws less where secondary sinks are than in later layers: story.",
            float(first[late].mean()),
            float(first[middle].mean()),
            "<",
            because="it is the mean of later layers in this run",
        ),
        SECONDARY.claim(
            "primary-between",
            f"Between the phases, in layers {between.start} to {between.stop - 1}, the first token "
            "draws little: share of what it draws later, story.",
            0.3,
            float(first[between].mean() / first[late].mean()),
            "<",
            because="a third is a collapse",
        ),
        VISUAL.claim(
            "massive",
            f"Tokens with massive channels (phi > {MASSIVE:g}) are sinks: mean weight on them over "
            "that on others, all layers and texts.",
            5.0,
            float(heavy.mean() / light.mean()) if heavy.size else float("nan"),
            ">",
            because="several times as much",
            note=f"{heavy.size} of {heavy.size + light.size} tokens and layers",
        ),
        SURVEY.claim(
            "sink-rate",
            "Most heads have a sink at the first token: share with a mean weight above 0.3, mean "
            "of texts.",
            0.5,
            float(np.mean([one["sink_rate"] for one in found.values()])),
            ">",
            because="more than half are most",
            note=by_text(lambda one: float(one["sink_rate"])),
        ),
        SURVEY.claim(
            "value-drain",
            "The first token's values are short where it is a sink: over the median of others, "
            "mean of later layers and texts.",
            1.0,
            float(np.mean([one["value_norm"][late].mean() for one in found.values()])),
            "<",
            because="1 is as long as others",
            note="keys " + by_text(lambda one: one["key_norm"][late].mean()),
        ),
        SURVEY.claim(
            "window-keeps",
            "A cache of 4 first tokens and 32 newest ones holds most weight: mean share, story.",
            0.8,
            float(story["kept"].mean()),
            ">",
            because="four fifths are most",
        ),
        FILTER.claim(
            "noncontent",
            "Most weight goes to tokens without content, in the second half of the layers: mean "
            "share of texts.",
            0.5,
            float(np.mean([one["noncontent"][layers // 2 :].mean() for one in found.values()])),
            ">",
            because="0.83 to 0.91 in the paper, of cross-attention to a sentence",
            note=by_text(lambda one: one["noncontent"][layers // 2 :].mean()),
        ),
    ]


def _spans(config) -> tuple[tuple[int, int], ...]:
    return config.middle, config.between, config.late


def _span(span: tuple[int, int], layers: int) -> slice:
    """Layers from first to last, in a model that has at least some of them."""
    first = min(span[0], layers - 1)
    return slice(first, max(min(span[1] + 1, layers), first + 1))


def _mlp_decides(middle: slice, found: dict[str, dict[str, np.ndarray]]) -> float:
    """Spearman's correlation of norms in front of the middle layers with weights in them."""
    written = [one["written"][max(middle.start - 1, 0), 1:] for one in found.values()]
    drawn = [one["alpha"][middle, 1:].max(0) for one in found.values()]
    rank = lambda values: np.argsort(np.argsort(np.concatenate(values)))
    return float(np.corrcoef(rank(written), rank(drawn))[0, 1])


def _draw(run: Run, config, found: dict[str, dict[str, np.ndarray]]) -> None:
    figure, axes = panels(1, 3, width=3.4)
    for number, (name, one) in enumerate(found.items()):
        axes[0, 0].plot(one["alpha"][:, 0], color=COLORS[number], label=name)
        axes[0, 1].plot(one["alpha"][:, 1:].max(1), color=COLORS[number], label=name)
        axes[0, 2].plot(one["phi"][:, 0], color=COLORS[number], label=name)
    axes[0, 2].axhline(MASSIVE, color="#999999", linewidth=1, linestyle=":")
    label(axes[0, 0], "layer", "mean weight on it", "first token")
    label(axes[0, 1], "layer", "mean weight on it", "strongest other token")
    label(axes[0, 2], "layer", "phi", "massive channels of the first token")
    run.save_figure(
        figure,
        "sinks_by_layer",
        "Mean weight that the first token and the strongest other one get from tokens behind "
        "them, and how far the largest channel of the first token's stream stands out.",
    )
    figure, axes = panels(1, 2, width=5.0, height=3.4)
    story = found["story"]
    for axis, values, title in (
        (axes[0, 0], story["alpha"], "mean over heads of the weight on each token"),
        (axes[0, 1], story["first"], "weight on the first token, by head"),
    ):
        image = axis.imshow(values, aspect="auto", cmap="viridis", vmin=0, origin="lower")
        figure.colorbar(image, ax=axis, shrink=0.8)
        label(axis, "token" if axis is axes[0, 0] else "head", "layer", title)
    run.save_figure(
        figure,
        "sink_maps",
        "The story: mean weight on each token by layer, and on the first token by head and layer.",
    )
