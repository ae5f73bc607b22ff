"""A trained language model as the judge of pairs: as it is, and after a few steps of adapters."""

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
)
from experiments.plots import COLORS, label, panels
from experiments.self_contradiction.study import PAPER
from jattn.nn import Llama, lora_init, lora_merge
from jattn.systems.self_contradiction import detection
from jattn.training import Claim, Run

TARGETS = ("query", "value")
PEOPLE = ("Anna Kovac", "Peter Lind", "Maria Costa", "John Abel", "Ruth Stein", "Omar Haddad")
FACTS = (
    ("was born in", ("Rome", "Paris", "Vienna", "Cairo", "Lima", "Oslo")),
    ("works as a", ("baker", "doctor", "teacher", "painter", "lawyer", "farmer")),
    ("is married to", ("Susan", "Robert", "Helen", "David", "Laura", "Simon")),
)
BATCH = 8


def pairs_of(rng: np.random.Generator, count: int) -> tuple[list[str], np.ndarray]:
    """Prompts about two statements, half of which cannot both be true; and which do."""
    texts, labels = [], rng.permutation(count) < count / 2
    for contradicts in labels:
        person = PEOPLE[rng.integers(len(PEOPLE))]
        relation, values = FACTS[rng.integers(len(FACTS))]
        first, second = rng.choice(values, 2, replace=False)
        other = second if contradicts else first
        texts.append(
            f"Statement 1: {person} {relation} {first}.\nStatement 2: {person} {relation} {other}."
            "\nDo the two statements contradict each other? Answer Yes or No.\nAnswer:"
        )
    return texts, labels


def judges(run: Run, config) -> list[Claim]:
    """Asks the language model before and after it has seen pairs with their labels."""
    found = run.cached("judges", lambda: measured(config))
    figure, axes = panels(1, 1, width=4.2)
    for number, name in enumerate(("before", "after")):
        axis = axes[0, 0]
        for of, style in ((True, "-"), (False, ":")):
            axis.hist(
                found[name][found["label"] == of], np.linspace(0, 1, 21), histtype="step",
                color=COLORS[number], linestyle=style,
                label=f"{name}, {'contradictory' if of else 'the same'}",
            )  # fmt: skip
    label(axes[0, 0], "p(yes)", "pairs", "the language model as a judge")
    run.save_figure(figure, "judges", "What the trained model says of pairs, before and after "
                    "adapters were trained on others.")  # fmt: skip
    answers, half = jnp.asarray(found["label"]), jnp.array([0.5])
    names = ("before", "after")
    f1 = {name: float(detection(jnp.asarray(found[name]), answers, half).f1[0]) for name in names}
    right = {name: float(((found[name] > 0.5) == found["label"]).mean()) for name in names}
    return [
        PAPER.claim(
            "judge-untaught", "A small language model as it is judges little better than chance: "
            "accuracy.", 0.6, right["before"], "<=", because="chance is 0.5",
            note=f"F1 {f1['before']:.2f}, where always yes has 0.67",
        ),
        PAPER.claim(
            "judge-taught", "Adapters trained on pairs make it a judge: gain in F1.", 0.0,
            f1["after"] - f1["before"], ">", because="0 is no gain",
            note=f"F1 {f1['after']:.2f}, accuracy {right['after']:.2f}",
        ),
    ]  # fmt: skip


def measured(config) -> dict[str, np.ndarray]:
    """p(yes) of pairs of the test, before and after."""
    model, tokenizer = language_model(config.model)
    rng = np.random.default_rng(config.seed)
    train, taught = pairs_of(rng, config.pairs)
    test, labels = pairs_of(rng, config.pairs)
    yes, no = np.asarray(first_tokens(tokenizer, ("Yes", "No")))

    def said(of: Llama) -> np.ndarray:
        found = []
        for start in range(0, len(test), BATCH):
            logits = np.asarray(next_logits(of, texts_of(tokenizer, test[start : start + BATCH])))
            found.append(logits[:, [yes, no]])
        both = np.concatenate(found)
        return np.asarray(jax.nn.softmax(jnp.asarray(both), axis=1))[:, 0]

    def loss(frozen, adapters, _, batch):
        texts, answer = batch
        layers = lora_merge(frozen.arrays()["layers"], adapters)
        tuned = Llama(frozen.config, weights={**frozen.arrays(), "layers": layers})
        logits = tuned(texts.tokens)[jnp.arange(len(texts.last)), texts.last]
        return optax.softmax_cross_entropy_with_integer_labels(logits, answer).mean()

    texts = texts_of(tokenizer, train)
    answers = jnp.where(jnp.asarray(taught), yes, no)
    data: Any = (texts, answers)
    adapters = lora_init(
        jax.random.key(config.seed), model.arrays()["layers"], rank=config.rank, targets=TARGETS
    )
    batches = batches_of(rng, data, config.adapter_steps, BATCH)
    learn = minimizer(loss, optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)))
    adapters, _ = learn(model, adapters, 0.0, batches)
    layers = lora_merge(model.arrays()["layers"], adapters)
    tuned = Llama(model.config, weights={**model.arrays(), "layers": layers})
    return {"before": said(model), "after": said(tuned), "label": labels}
