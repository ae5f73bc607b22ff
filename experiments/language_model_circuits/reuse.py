"""Circuits of two tasks: scored by patching, tested by patching together, compared."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.language_model import (
    LanguageModel,
    language_model,
    program,
    random_heads,
    top_heads,
)
from experiments.language_model_circuits.prompts import (
    Prompts,
    attributed,
    coloured_objects,
    difference,
    indirect_objects,
    right,
)
from experiments.plots import label, panels
from jattn import lens
from jattn.lens.methods.circuits import circuit, overlap
from jattn.lens.patching import activation_patching, patch
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2310.08744", "Circuit component reuse across tasks")
EMERGENT = Paper("arXiv 2509.25758", "Thinking sparks: emergent heads in reasoning models")
SIDE_BY_SIDE = 15


def reuse(run: Run, config) -> list[Claim]:
    """Scores the heads of both tasks, and patches the best ones together."""
    language = language_model(config.model)
    found = run.cached("reuse", lambda: measured(run, language, config))
    _draw(run, found)
    exact, first_order = found["exact"], found["first_order"]
    heads = exact.shape[1]
    order = np.argsort(-exact, axis=None)
    shown = lambda indices: ", ".join(
        f"{divmod(int(i), heads)} {exact.ravel()[i]:.2f}" for i in indices
    )
    shared = float(overlap(jnp.asarray(found["circuits"][0]), jnp.asarray(found["circuits"][1])))
    chance = config.circuit / exact.size
    return [
        PAPER.claim(
            "indirect-object",
            "The model knows whom something is given to: logit of that name less the giver's, mean "
            "of prompts.",
            0.0,
            float(found["clean"][0]),
            ">",
            because="0 is not knowing",
            note=f"corrupt {found['corrupt'][0]:.2f}; right {found['right'][0]:.2f}",
        ),
        PAPER.claim(
            "coloured-object",
            "It knows the color that is asked for: logit less that of another object, mean of "
            "prompts.",
            0.0,
            float(found["clean"][1]),
            ">",
            because="0 is not knowing",
            note=f"corrupt {found['corrupt'][1]:.2f}; right {found['right'][1]:.2f} of three",
        ),
        PAPER.claim(
            "together",
            f"The {config.together} best heads carry most of it: share of the difference that "
            "comes back when they are patched together, indirect objects.",
            0.5,
            float(found["together"]),
            ">",
            because="more than half is most",
            note=f"heads {shown(order[:5])}; negative {shown(order[::-1][:2])}",
        ),
        PAPER.claim(
            "together-random",
            f"{config.together} random heads do not: largest share.",
            0.2,
            float(found["random"].max()),
            "<",
            because="a fifth is little",
            note=", ".join(f"{x:.2f}" for x in found["random"]),
        ),
        EMERGENT.claim(
            "first-order",
            "Scores by gradients (EAP-IG) are those of patching: correlation over heads.",
            0.7,
            float(np.corrcoef(exact.ravel(), first_order.ravel())[0, 1]),
            ">",
            because="they rank heads alike then",
        ),
        PAPER.claim(
            "overlap",
            f"Both tasks run on the same heads: share of the {config.circuit} heads of indirect "
            "objects that are among those of colors.",
            0.78,
            shared,
            ">=",
            where="78 % there, of GPT-2 medium",
            note=f"chance is {chance:.2f}",
        ),
        PAPER.claim(
            "overlap-chance",
            "They share more heads than chance has it: share over that of random circuits.",
            3.0,
            shared / chance,
            ">",
            because="three times as many are clearly more",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Scores `[L, h]`, exact ones of some prompts and first order ones of all."""
    model, tokenizer = language
    layers, heads = model.config.layers, model.config.heads
    rng = np.random.default_rng(config.seed)
    tasks = [make(tokenizer, rng, config.prompts) for make in (indirect_objects, coloured_objects)]
    shares = jnp.zeros(config.steps)
    with run.progress("circuits", 5 + config.draws) as advance:
        known = []
        for task in tasks:
            known.append([np.asarray(x) for x in _known(model, task)])
        advance(1)
        scores = []
        for task in tasks:
            scores.append(attributed(model, task, shares))
            advance(1)
        some = Prompts(*(x[: config.exact] for x in tasks[0]))
        exact = np.asarray(_patched(model, some))
        advance(1)
        same = attributed(model, some, shares)
        advance(1)
        count = min(config.together, layers * heads)
        together = _together(model, some, top_heads(jnp.asarray(exact), count))
        random = []
        for _ in range(config.draws):
            random.append(float(_together(model, some, random_heads(rng, layers, heads, count))))
            advance(1)
    size = min(config.circuit, layers * heads)
    return dict(
        clean=np.array([one[0] for one in known]),
        corrupt=np.array([one[1] for one in known]),
        right=np.array([one[2] for one in known]),
        scores=np.stack(scores),
        circuits=np.stack([circuit(one, size) for one in scores]),
        exact=exact,
        first_order=np.asarray(same),
        together=np.asarray(together),
        random=np.array(random),
    )


@program
def _known(model: Llama, prompts: Prompts):
    clean, corrupt = (lens.run(model, x)[0] for x in (prompts.clean, prompts.corrupt))
    return (
        difference(clean, prompts),
        difference(corrupt, prompts),
        right(clean, prompts).mean(),
    )


@program
def _patched(model: Llama, prompts: Prompts):
    metric = lambda logits: difference(logits, prompts)
    return activation_patching(
        model, prompts.clean, prompts.corrupt, metric, batch_size=SIDE_BY_SIDE
    )


@program
def _together(model: Llama, prompts: Prompts, heads):
    clean, found = lens.run(model, prompts.clean, record=("z",))
    least = difference(lens.run(model, prompts.corrupt)[0], prompts)
    most = difference(clean, prompts)
    return (difference(patch(model, prompts.corrupt, found["z"], heads), prompts) - least) / (
        most - least
    )


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 3, width=3.0, height=3.2)
    for axis, values, title in zip(
        axes[0],
        (found["exact"], *found["scores"]),
        ("indirect objects, patched", "the same by gradients", "colors by gradients"),
        strict=True,
    ):
        limit = np.abs(values).max()
        image = axis.imshow(
            values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", origin="lower"
        )
        figure.colorbar(image, ax=axis, shrink=0.8)
        label(axis, "head", "layer", title)
    run.save_figure(
        figure,
        "circuits",
        "Share of the difference between clean and corrupt prompts that each head carries: exact, "
        "of some prompts, and to first order, of both tasks.",
    )
