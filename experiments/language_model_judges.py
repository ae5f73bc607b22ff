"""A trained language model that says yes or no: as it is, and after a few steps of adapters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.language_model import (
    batches_of,
    first_tokens,
    language_model,
    minimizer,
    next_logits,
    texts_of,
    with_adapters,
)
from experiments.plots import COLORS, label, panels
from jattn.nn import Llama, lora_init
from jattn.systems.self_contradiction import detection
from jattn.training import Claim, Paper, Run

TARGETS = ("query", "value")
BATCH = 8
Prompts = tuple[list[str], np.ndarray]  # and which of them yes is the answer to


def judged(config, train: Prompts, test: Prompts) -> dict[str, np.ndarray]:
    """p(yes) of prompts of the test, before and after adapters have learned the others.

    Args:
        config: `model`, `seed`, `rank` of the adapters, `adapter_steps`.
        train, test: prompts that end where the answer begins.
    """
    model, tokenizer = language_model(config.model)
    yes, no = np.asarray(first_tokens(tokenizer, ("Yes", "No")))

    def said(of: Llama) -> np.ndarray:
        found, texts = [], test[0]
        for start in range(0, len(texts), BATCH):
            logits = np.asarray(next_logits(of, texts_of(tokenizer, texts[start : start + BATCH])))
            found.append(logits[:, [yes, no]])
        return np.asarray(jax.nn.softmax(jnp.asarray(np.concatenate(found)), axis=1))[:, 0]

    def loss(frozen, adapters, _, batch):
        texts, answer = batch
        logits = with_adapters(frozen, adapters)(texts.tokens)[
            jnp.arange(len(texts.last)), texts.last
        ]
        return optax.softmax_cross_entropy_with_integer_labels(logits, answer).mean()

    texts = texts_of(tokenizer, train[0])
    data: Any = (texts, jnp.where(jnp.asarray(train[1]), yes, no))
    adapters = lora_init(
        jax.random.key(config.seed), model.arrays()["layers"], rank=config.rank, targets=TARGETS
    )
    rng = np.random.default_rng(config.seed)
    batches = batches_of(rng, data, config.adapter_steps, BATCH)
    learn = minimizer(loss, optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)))
    adapters, _ = learn(model, adapters, 0.0, batches)
    tuned = with_adapters(model, adapters)
    return {"before": said(model), "after": said(tuned), "label": test[1]}


def claims_of(
    run: Run, paper: Paper, found: dict[str, np.ndarray], *, positive: str, negative: str
) -> list[Claim]:
    """Draws what `judged` found, and claims what a small model can be expected to do."""
    figure, axes = panels(1, 1, width=4.2)
    axis = axes[0, 0]
    for number, name in enumerate(("before", "after")):
        for of, style, text in ((True, "-", positive), (False, ":", negative)):
            axis.hist(
                found[name][found["label"] == of], np.linspace(0, 1, 21), histtype="step",
                color=COLORS[number], linestyle=style, label=f"{name}, {text}",
            )  # fmt: skip
    label(axis, "p(yes)", "prompts", "the language model as a judge")
    run.save_figure(figure, "judges", "What the trained model says, before and after adapters were "
                    "trained on other prompts.")  # fmt: skip
    answers, half = jnp.asarray(found["label"]), jnp.array([0.5])
    names = ("before", "after")
    f1 = {name: float(detection(jnp.asarray(found[name]), answers, half).f1[0]) for name in names}
    right = {name: float(((found[name] > 0.5) == found["label"]).mean()) for name in names}
    return [
        paper.claim(
            "judge-untaught", "A small language model as it is judges little better than chance: "
            "accuracy.", 0.6, right["before"], "<=", because="chance is 0.5",
            note=f"F1 {f1['before']:.2f}, where always yes has 0.67",
        ),
        paper.claim(
            "judge-taught", "Adapters trained on other prompts make it a judge: gain in F1.", 0.0,
            f1["after"] - f1["before"], ">", because="0 is no gain",
            note=f"F1 {f1['after']:.2f}, accuracy {right['after']:.2f}",
        ),
    ]  # fmt: skip
