"""Repair: a few heads in the middle are made to look at the color that is asked for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import (
    LanguageModel,
    language_model,
    program,
    top_heads,
)
from experiments.language_model_circuits.prompts import (
    Prompts,
    coloured_objects,
    difference,
    right,
)
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.circuits import force_attention
from jattn.lens.patching import over_edits
from jattn.lens.readouts import grad_times_attention
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2310.08744", "Circuit component reuse across tasks")


def repair(run: Run, config) -> list[Claim]:
    """Chooses heads of the middle third by a gradient on some prompts; forces them on others."""
    language = language_model(config.model)
    found = run.cached("repair", lambda: measured(run, language, config))
    _draw(run, found)
    heads = found["scores"].shape[1]
    plain, forced = found["plain"].mean(), found["forced"].mean()
    random = found["random"].mean(1)
    chosen = ", ".join(str(divmod(int(i), heads)) for i in np.flatnonzero(found["heads"]))
    return [
        PAPER.claim(
            "repair",
            f"Colors are right more often with {config.repair.heads} heads forced on them: gain "
            "in accuracy.",
            0.441,
            float(forced - plain),
            ">=",
            where="49.6 to 93.7 % there, of GPT-2 medium",
            note=f"{plain:.2f} to {forced:.2f}; heads {chosen}",
        ),
        PAPER.claim(
            "repair-random",
            "More often than with as many random heads of the same layers forced: accuracy.",
            float(random.max()),
            float(forced),
            ">",
            because="it is the best of random heads in this run",
            note=", ".join(f"{x:.2f}" for x in random),
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Whether each prompt is answered right, by which heads are forced."""
    model, tokenizer = language
    layers, heads = model.config.layers, model.config.heads
    settings, rng = config.repair, np.random.default_rng(config.seed + 1)
    choose, test = (
        coloured_objects(tokenizer, rng, count) for count in (settings.choose, settings.test)
    )
    layer = jnp.arange(layers)[:, None]
    middle = (layer >= layers // 3) & (layer < max(2 * layers // 3, layers // 3 + 1))
    middle = jnp.broadcast_to(middle, (layers, heads))
    with run.progress("repair", 3 + config.draws) as advance:
        scores = jnp.where(middle, _gain(model, choose), -jnp.inf)
        chosen = top_heads(scores, min(settings.heads, int(middle.sum())))
        advance(1)
        plain = _forced(model, test, jnp.zeros((layers, heads), bool))
        advance(1)
        forced = _forced(model, test, chosen)
        advance(1)
        random = []
        for _ in range(config.draws):
            drawn = jnp.where(middle, rng.random((layers, heads)), -jnp.inf)
            random.append(np.asarray(_forced(model, test, top_heads(drawn, int(chosen.sum())))))
            advance(1)
    return dict(
        scores=np.where(middle, scores, 0),
        heads=np.asarray(chosen),
        plain=np.asarray(plain),
        forced=np.asarray(forced),
        random=np.stack(random),
    )


@program
def _gain(model: Llama, prompts: Prompts):
    """What the answer would gain from each head's last row on its place, to first order."""
    metric = lambda logits: difference(logits, prompts)
    probs, grad = grad_times_attention(model, prompts.clean, metric)
    wanted = jax.nn.one_hot(prompts.place, probs.shape[-1])[:, None]
    return ((wanted - probs[:, :, :, -1]) * grad[:, :, :, -1]).sum((1, 3))


@program
def _forced(model: Llama, prompts: Prompts, heads):
    """Whether each prompt is right, with heads looking from its last token at the answer."""
    index = jnp.arange(prompts.clean.shape[1])

    def one(prompt):
        single = Prompts(*(x[None] for x in prompt))
        edit = force_attention(heads, index == prompt.place)
        return right(lens.run(model, single.clean, edits=[edit])[0], single)[0]

    return over_edits(one, prompts, batch_size=8)


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 1, width=3.6)
    rows = {
        "as it is": found["plain"].mean(),
        "forced": found["forced"].mean(),
        "random heads": found["random"].mean(),
    }
    axes[0, 0].bar(range(len(rows)), list(rows.values()), color=COLORS[: len(rows)])
    axes[0, 0].set_xticks(range(len(rows)), list(rows))
    axes[0, 0].axhline(1 / 3, color="#999999", linewidth=1, linestyle=":")
    label(axes[0, 0], "", "accuracy")
    run.save_figure(
        figure,
        "repair",
        "Share of prompts whose color is right among three, with heads forced to look at it.",
    )
