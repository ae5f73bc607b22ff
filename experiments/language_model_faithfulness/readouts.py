"""What maps say of an answer: contrast with a general request (CARVE), and saliency."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import LanguageModel, language_model, program
from experiments.language_model_faithfulness.questions import (
    FACT,
    FACTS,
    VALUE,
    Questions,
    log_probs,
    of_answers,
    questions,
)
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.contrastive_attention import contrastive_attention, span_entropy
from jattn.lens.methods.saliency import candidate_saliency, saliency_maps
from jattn.lens.readouts import grad_times_attention
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

CONTRAST = Paper("arXiv 2509.06461", "CARVE: focusing by contrastive attention")
SALIENCY = Paper("arXiv 2601.20279", "Hallucination begins where saliency drops")
GENERAL = "\nSummary of all that was said above, in a few words: These are"


def readouts(run: Run, config) -> list[Claim]:
    """Ranks the facts' tokens by attention and by contrast; saliency of right and wrong names."""
    language = language_model(config.model)
    found = run.cached("readouts", lambda: measured(run, language, config))
    _draw(run, found)
    reciprocal = {name: 1 / (1 + found[name]) for name in ("by_attention", "by_contrast")}
    right, wrong = found["saliency"]
    answered = found["answered"]
    return [
        CONTRAST.claim(
            "carve-rank",
            "The contrast ranks the fact that is asked for higher than attention alone: mean "
            "reciprocal rank of its name among all tokens of the facts.",
            float(reciprocal["by_attention"].mean()),
            float(reciprocal["by_contrast"].mean()),
            ">",
            because="it is that of attention in this run",
            note=f"better in {(found['by_contrast'] < found['by_attention']).mean():.2f} of the "
            f"questions, worse in {(found['by_contrast'] > found['by_attention']).mean():.2f}",
        ),
        CONTRAST.claim(
            "carve-entropy",
            "A question focuses attention: its entropy over the facts is below that of a general "
            "request, mean over layers, nats.",
            float(found["entropy"][1]),
            float(found["entropy"][0]),
            "<",
            because="it is that of the general request in this run",
        ),
        SALIENCY.claim(
            "saliency-right",
            "Right names are more salient than wrong ones: mean saliency of the row that predicts "
            "them on the answer so far, layers 6 to 8.",
            float(wrong.mean()),
            float(right.mean()),
            ">",
            because="it is that of another fact's name in this run",
            note=f"higher in {(right > wrong).mean():.2f} of the questions",
        ),
        SALIENCY.claim(
            "saliency-drops",
            "Where it answers wrongly, what it says is less salient than where it answers rightly.",
            float(found["said"][answered].mean()) if answered.any() else float("nan"),
            float(found["said"][~answered].mean()) if (~answered).any() else float("nan"),
            "<",
            because="it is that of right answers in this run",
            note=f"right in {answered.mean():.2f} of the questions",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Ranks `[n]` of the names that are asked for; saliencies of names by question."""
    model, tokenizer = language
    some = questions(language, config.questions, np.random.default_rng(config.seed))
    facts = np.asarray(some.texts.tokens)[:, : FACTS * FACT]
    request = np.tile(tokenizer.encode(GENERAL), (len(facts), 1))
    general = jnp.asarray(np.concatenate([facts, request], 1))
    with run.progress("readouts", 3) as advance:
        asked, unasked = _on_facts(model, some.texts.tokens), _on_facts(model, general)
        advance(1)
        low, high = (int(share * len(asked)) for share in (0.7, 0.9))  # 20 to 25 of 28 there
        steps = lambda maps: maps[low:high].swapaxes(0, 1)[:, None]  # [n, 1 step, L, keys]
        contrast = jax.vmap(contrastive_attention)(steps(asked), steps(unasked))
        logs = log_probs(language, some)
        said = np.asarray(some.names)[np.arange(len(logs)), logs.argmax(1)]
        wrong = np.asarray(some.names)[np.arange(len(logs)), (np.asarray(some.asked) + 1) % FACTS]
        advance(1)
        outputs = some.length - len(tokenizer.encode(" The name of the dog is"))
        saliency = lambda names: np.asarray(_saliency(model, some, jnp.asarray(names), outputs))
        salient = [saliency(names) for names in (some.answers, wrong)]
        spoken = saliency(said)
        advance(1)
    place = FACT * np.asarray(some.asked) + VALUE - 1
    rank = lambda scores: (scores > scores[np.arange(len(scores)), place][:, None]).sum(1)
    attention = np.asarray(asked[low:high].sum(0))
    return dict(
        by_attention=rank(attention),
        by_contrast=rank(np.asarray(contrast)),
        entropy=np.array([float(span_entropy(x).mean()) for x in (asked, unasked)]),
        saliency=np.stack(salient),
        said=spoken,
        answered=of_answers(some, logs) == logs.max(1),
        contrast=np.asarray(contrast),
        attention=attention,
    )


@program
def _on_facts(model: Llama, tokens):
    """Weights of the last row on the facts but the first token, head means `[L, n, keys]`."""
    probs = lens.run(model, tokens, record=("probs",))[1]["probs"]
    return probs[..., -1, 1 : FACTS * FACT].mean(2)


@program
def _saliency(model: Llama, some: Questions, names, start):
    """Saliency of a next token of every question on the tokens from `start` on, `[n]`."""
    place = jnp.arange(len(names))

    def loss(logits):
        return -jax.nn.log_softmax(logits)[place, names].sum()

    probs, grads = grad_times_attention(model, some.texts.tokens, loss, at=some.texts.last)
    maps = saliency_maps(probs, grads)[6:9]  # [3, n, t, s]
    outputs = jnp.arange(some.length) >= start
    of_one = lambda maps: candidate_saliency(maps, some.length - 1, outputs)
    return jax.vmap(of_one, in_axes=1)(maps)


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.6)
    keys = np.arange(1, FACTS * FACT)
    first = slice(0, None, FACTS)  # questions about the first fact
    for number, name in enumerate(("attention", "contrast")):
        values = found[name][first]
        share = (values / values.sum(1, keepdims=True)).mean(0)
        axes[0, 0].plot(keys, share, color=COLORS[number], marker="o", markersize=3, label=name)
    axes[0, 0].axvline(VALUE, color="#999999", linestyle=":", linewidth=1)
    label(axes[0, 0], "token of the facts", "share")
    right, wrong = found["saliency"]
    axes[0, 1].scatter(wrong, right, color=COLORS[2], s=14)
    reach = [0, float(max(right.max(), wrong.max()))]
    axes[0, 1].plot(reach, reach, color="#999999", linestyle=":", linewidth=1)
    label(axes[0, 1], "saliency of a wrong name", "of the right one")
    run.save_figure(
        figure,
        "readouts",
        "Left: where the last row looks in questions about the first fact (dotted: its name), by "
        "attention and by its contrast with a general request. Right: saliency, by question.",
    )
