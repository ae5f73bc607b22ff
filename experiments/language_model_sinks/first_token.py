"""The weight on the first token: tuned by a factor (ZeroTuning), and taken away (StreamingLLM)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import LanguageModel, Texts, language_model, program, texts_of
from experiments.language_model_texts import TEXTS, mean_losses, tokens_of
from experiments.plots import COLORS, label, log_scale, panels
from jattn import lens
from jattn.lens.methods.zero_tuning import next_token_entropy, zero_tuning
from jattn.lens.patching import over_edits
from jattn.lens.readouts import token_losses
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

TUNING = Paper("arXiv 2505.11739", "ZeroTuning: unlocking the initial token's power")
STREAMING = Paper("arXiv 2309.17453", "Efficient streaming language models with attention sinks")
PROFILED = ("story", "code")  # heads and factor are chosen on these, and tested on the others
SIDE_BY_SIDE = 5  # layers at a time


def first_token(run: Run, config) -> list[Claim]:
    """Tunes the weight on the first token in all heads, in thirds of layers, in chosen heads."""
    language = language_model(config.model)
    found = run.cached("first_token", lambda: measured(run, language, config))
    _draw(run, config, found)
    return claims_of(config, found)


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Mean losses: by factor and text, by thirds of the layers, with the first token hidden."""
    model = language.model
    layers, heads = model.config.layers, model.config.heads
    texts = texts_of(language.tokenizer, list(TEXTS.values()))
    story = tokens_of(language.tokenizer, TEXTS["story"])
    profiled = jnp.array([list(TEXTS).index(name) for name in PROFILED])
    factors = jnp.asarray(config.factors)
    everywhere = jnp.ones((layers, heads))
    thirds = jnp.arange(layers) * 3 // layers
    ends = factors[jnp.array([0, -1])]
    late = jnp.arange(layers) >= min(config.late[0], layers - 1)
    with run.progress("first token", 2 * len(factors) + 6 + 3 + 2) as advance:

        def tuned(gamma):
            found = [np.asarray(x) for x in _tuned(model, texts, gamma)]
            advance(1)
            return found

        def without(where):
            found = np.asarray(_hidden(model, texts, where))
            advance(1)
            return found

        of_factors = [tuned(factor * everywhere) for factor in factors]
        part = lambda third, g: jnp.where((thirds == third)[:, None], g, everywhere)
        parts = [[tuned(part(third, g))[0] for g in ends] for third in range(3)]
        nowhere = jnp.zeros(layers, bool)
        hidden = [without(where) for where in (nowhere, ~nowhere, late)]
        slope = np.asarray(_slopes(model, jax.tree.map(lambda x: x[profiled], texts)))
        advance(1)
        silent = np.asarray(_silent(model, story))
        advance(1)
        rises, falls = slope < 0, slope > 0  # the loss falls where the factor is raised, or lowered
        raised = rises.sum() >= falls.sum()
        chosen = jnp.asarray(rises if raised else falls)
        together = [tuned(jnp.where(chosen, g, everywhere))[0] for g in factors]
    return dict(
        losses=np.stack([loss for loss, _ in of_factors], 1),
        entropies=np.stack([entropy for _, entropy in of_factors], 1),
        thirds=np.moveaxis(np.array(parts), 2, 0),
        hidden=np.stack(hidden, 1),
        silent=silent,
        slope=slope,
        tuned=np.stack(together, 1),
        raised=np.asarray(raised),
        chosen=np.asarray(chosen),
    )


@program
def _tuned(model: Llama, texts: Texts, gamma):
    """Mean loss and entropy of each text."""
    logits = lens.run(model, texts.tokens, edits=[zero_tuning(gamma, texts.tokens.shape[1])])[0]
    real = jnp.arange(texts.tokens.shape[1]) <= texts.last[:, None]
    return mean_losses(logits, texts), jax.vmap(next_token_entropy)(logits, real)


@program
def _slopes(model: Llama, texts: Texts):
    """Derivative of the mean of texts' losses by the log of each head's factor, at 1."""

    def loss(logs):
        edit = zero_tuning(jnp.exp(logs), texts.tokens.shape[1])
        return mean_losses(lens.run(model, texts.tokens, edits=[edit])[0], texts).mean()

    return jax.grad(loss)(jnp.zeros((model.config.layers, model.config.heads)))


@program
def _hidden(model: Llama, texts: Texts, layers):
    """Losses with the first token's key hidden from all rows but its own, in some layers."""
    index = jnp.arange(texts.tokens.shape[1])
    there = (index == 0) & (index > 0)[:, None] & layers[:, None, None]
    edit = lens.LogitBias(jnp.where(there, -jnp.inf, 0.0)[:, None, None])
    return mean_losses(lens.run(model, texts.tokens, edits=[edit])[0], texts)


@program
def _silent(model: Llama, tokens):
    """Loss of a text without the attention of each layer."""
    layers, heads = model.config.layers, model.config.heads

    def loss(off):
        edit = lens.ablate(jnp.broadcast_to(off[:, None], (layers, heads)))
        return token_losses(lens.run(model, tokens, edits=[edit])[0], tokens).mean()

    return over_edits(loss, jnp.eye(layers), batch_size=SIDE_BY_SIDE)


def claims_of(config, found: dict[str, np.ndarray]) -> list[Claim]:
    """Claims about factors and about the first token's absence."""
    factors, names = np.asarray(config.factors), list(TEXTS)
    plain = int(np.argmin(np.abs(factors - 1)))
    of = lambda name: found["losses"][names.index(name)]
    claims = []
    for name in PROFILED:
        rows = of(name)
        claims += [
            TUNING.claim(
                f"best-factor-{name}",
                f"One factor of all heads is best near 1: distance of its log2 from 0, {name}.",
                1.0,
                float(abs(np.log2(factors[rows.argmin()]))),
                "<=",
                because="0.5 to 2 is near; which tasks gain from which factor differs in the paper",
                note=", ".join(f"{g:g}: {x:.3f}" for g, x in zip(factors, rows, strict=True)),
            ),
            TUNING.claim(
                f"far-factors-{name}",
                f"Factors far from 1 cost: smaller rise of the loss at {factors[0]:g} and "
                f"{factors[-1]:g}, {name}.",
                0.0,
                float(min(rows[0], rows[-1]) - rows[plain]),
                ">",
                because="0 is no change",
            ),
        ]
    reach = np.abs(found["thirds"] - found["losses"][:, plain][:, None, None]).mean((0, 2))
    held_out = [i for i, name in enumerate(names) if name not in PROFILED]
    profiled = [i for i, name in enumerate(names) if name in PROFILED]
    best = int(found["tuned"][profiled].mean(0).argmin())
    gain = (found["losses"][held_out, plain] - found["tuned"][held_out, best]) / found["losses"][
        held_out, plain
    ]
    least_entropy = found["entropies"].argmin(1)
    unsupervised = found["losses"][:, plain] - np.take_along_axis(
        found["losses"], least_entropy[:, None], 1
    ).squeeze(1)
    hidden = found["hidden"]
    return [
        *claims,
        TUNING.claim(
            "early-layers",
            "Tuning early layers does most: mean change of the loss over that of the strongest "
            "later third.",
            1.0,
            float(reach[0] / reach[1:].max()),
            ">",
            because="1 is as much",
            note="thirds " + ", ".join(f"{x:.3f}" for x in reach),
        ),
        TUNING.claim(
            "tuned-heads",
            "One factor at the heads whose gradients agree, chosen on two texts, helps others: "
            "relative fall of the loss.",
            0.0,
            float(gain.mean()),
            ">",
            because="0 is no gain; the paper's are 2 to 20 % of task scores",
            note=f"{int(found['chosen'].sum())} heads, factor {factors[best]:g}; single texts "
            + ", ".join(f"{x:.4f}" for x in gain),
            seeds=gain,
        ),
        TUNING.claim(
            "least-entropy",
            "The factor of least entropy, found without labels, is no worse than 1: mean fall of "
            "the loss, nats.",
            0.0,
            float(unsupervised.mean()),
            ">=",
            because="0 is no change",
            note="factors " + ", ".join(f"{factors[i]:g}" for i in least_entropy),
        ),
        STREAMING.claim(
            "first-hidden",
            "Without the first token's key the model is worse: rise of the loss, mean of texts.",
            0.1,
            float((hidden[:, 1] - hidden[:, 0]).mean()),
            ">",
            because="a tenth of a nat is clearly worse",
            note=", ".join(f"{n} {x:.2f}" for n, x in zip(names, hidden[:, 1], strict=True)),
        ),
        STREAMING.claim(
            "first-hidden-late",
            "Hidden only from the second phase of sinks on, that costs more than hidden "
            "everywhere: difference of losses, story.",
            0.0,
            float(hidden[names.index("story"), 2] - hidden[names.index("story"), 1]),
            ">",
            because="without a first phase, another token may take its place",
            note=", ".join(f"{n} {x:.2f}" for n, x in zip(names, hidden[:, 2], strict=True)),
        ),
    ]


def _draw(run: Run, config, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 3, width=3.4)
    factors = np.asarray(config.factors)
    plain = int(np.argmin(np.abs(factors - 1)))
    for number, name in enumerate(TEXTS):
        change = found["losses"][number] - found["losses"][number, plain]
        axes[0, 0].plot(factors, change, color=COLORS[number], marker="o", label=name)
    log_scale(axes[0, 0], "x")
    label(axes[0, 0], "factor of the weight", "change of the loss, nats", "first token, all heads")
    limit = np.abs(found["slope"]).max()
    image = axes[0, 1].imshow(
        found["slope"], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", origin="lower"
    )
    figure.colorbar(image, ax=axes[0, 1], shrink=0.8)
    label(axes[0, 1], "head", "layer", "derivative by log of the factor")
    axes[0, 2].bar(np.arange(len(found["silent"])), found["silent"], color=COLORS[0])
    base = found["hidden"][list(TEXTS).index("story"), 0]
    axes[0, 2].axhline(base, color="#999999", linewidth=1, linestyle=":")
    label(axes[0, 2], "layer without attention", "loss, nats", "story")
    run.save_figure(
        figure,
        "first_token",
        "Left: the loss when the weight on the first token is multiplied in all heads. Middle: "
        "which heads would have it larger (blue) or smaller (red). Right: the loss without the "
        "attention of one layer; dotted, with all.",
    )
