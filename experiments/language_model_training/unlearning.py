"""Forgetting some facts and keeping others: attention shifting beside gradient ascent.

A Llama of two layers has learned by heart `start, first name, last name, is, fact`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.language_model import last_of, minimizer, program
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.edits import KeyReweight
from jattn.lens.methods.attention_shifting import (
    shifted_target,
    shifting_loss,
    token_importance,
)
from jattn.nn import Llama, LlamaConfig
from jattn.nn.llama import llama_init
from jattn.nn.lora import lora_init, lora_merge
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2510.17210", "Attention shifting for selective unlearning")
PROMPT = 4  # tokens in front of a fact
ROUNDS = 20  # times that accuracy is measured
FORGOTTEN, KEPT = 0.2, 0.8


def unlearning(run: Run, config) -> list[Claim]:
    """Shifts attention off some facts, and climbs their loss for comparison."""
    found = run.cached("unlearning", lambda: measured(run, config))
    _draw(run, found)
    shifted, climbed = found["shifted"], found["climbed"]  # [seeds, rounds, (forgotten, kept)]
    below = climbed[..., 0] < FORGOTTEN
    at = np.where(below.any(1), below.argmax(1), ROUNDS - 1)
    left, kept = climbed[np.arange(len(at)), at].T
    return [
        PAPER.claim(
            "learned",
            "Before, all facts are known: accuracy.",
            1.0,
            float(found["learned"].mean()),
            ">=",
            because="there is nothing to forget else",
        ),
        PAPER.claim(
            "forgotten",
            "Attention shifting forgets what it is to forget: accuracy.",
            FORGOTTEN,
            float(shifted[:, -1, 0].mean()),
            "<",
            because="guessing among the facts is 0.05",
            seeds=shifted[:, -1, 0],
        ),
        PAPER.claim(
            "kept",
            "It keeps the others: accuracy.",
            KEPT,
            float(shifted[:, -1, 1].mean()),
            ">",
            because="four of five are most",
            seeds=shifted[:, -1, 1],
        ),
        PAPER.claim(
            "ascent",
            "Gradient ascent keeps less when it has first forgotten, or after as many steps: "
            "accuracy.",
            float(shifted[:, -1, 1].mean()),
            float(kept.mean()),
            "<",
            because="it is what attention shifting keeps in this run",
            note=f"accuracy on what is to be forgotten then: {left.mean():.2f}",
            seeds=kept,
        ),
    ]


def measured(run: Run, config) -> dict[str, Any]:
    """Accuracies `[seeds, rounds, 2]` on what is to be forgotten and kept, by method."""
    settings = config.forget
    facts = settings.facts
    model_config = LlamaConfig(
        vocab_size=3 * facts + 2, dim=64, layers=2, heads=4, kv_heads=2, hidden=128
    )
    learn = minimizer(_loss_of_weights, optax.adam(settings.learning_rate))
    adam = optax.adam(settings.learning_rate)
    shift, climb = minimizer(_shifting_loss, adam), minimizer(_ascent_loss, adam)
    every = settings.shift_steps // ROUNDS
    index = jnp.arange(facts)
    rows = dict(learned=[], shifted=[], climbed=[])
    with run.progress("unlearning", settings.seeds * (1 + 2 * ROUNDS)) as advance:
        for seed in range(settings.seeds):
            init, order, adapt = jax.random.split(jax.random.key(config.seed + seed), 3)
            last = jax.random.permutation(order, facts)
            tokens = jnp.stack(
                [
                    jnp.zeros(facts, int),
                    1 + index,
                    1 + facts + last,
                    jnp.full(facts, 1 + 3 * facts),
                    1 + 2 * facts + index,
                ],
                axis=1,
            )
            start = llama_init(init, model_config)
            shape = Llama(model_config, weights=start)
            batches = jnp.broadcast_to(tokens, (settings.steps, *tokens.shape))
            weights, _ = learn(shape, start, (), batches)
            model = Llama(model_config, weights=weights)
            rows["learned"].append(float(_right(model, {}, tokens).mean()))
            advance(1)
            kept = index >= settings.forgotten
            targets = _targets(model, tokens, kept, settings.suppress, settings.reinforce)
            given = targets, kept, settings.share, tokens
            for name, train in (("shifted", shift), ("climbed", climb)):
                adapters = lora_init(
                    adapt, weights["layers"], rank=settings.rank, targets=("query", "key")
                )
                accuracy = []
                for _ in range(ROUNDS):
                    adapters, _ = train(model, adapters, given, jnp.zeros(every))
                    right = _right(model, adapters, tokens)
                    accuracy.append([float(right[~kept].mean()), float(right[kept].mean())])
                    advance(1)
                rows[name].append(accuracy)
    return {name: np.asarray(value) for name, value in rows.items()}


def _adapted(model: Llama, adapters: Any) -> Llama:
    weights = model.arrays()
    merged = {**weights, "layers": lora_merge(weights["layers"], adapters)}
    return Llama(model.config, weights=merged)


def _fact_loss(model: Llama, tokens):
    logits = model(tokens[:, :PROMPT])[:, -1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, PROMPT])


def _loss_of_weights(model, weights, given, batch):
    return _fact_loss(Llama(model.config, weights=weights), batch).mean()


def _ascent_loss(model, adapters, given, batch):
    _, kept, _, tokens = given
    loss = _fact_loss(_adapted(model, adapters), tokens)
    return -jnp.where(kept, 0, loss).sum() / (~kept).sum()


def _shifting_loss(model, adapters, given, batch):
    targets, kept, share, tokens = given
    found = lens.run(_adapted(model, adapters), tokens[:, :PROMPT], record=("probs",))[1]["probs"]
    each = jax.vmap(shifting_loss, in_axes=(1, 0))(found, targets)
    mean = lambda some: jnp.where(some, each, 0).sum() / some.sum()
    return share * mean(~kept) + (1 - share) * mean(kept)


@program
def _right(model: Llama, adapters, tokens):
    logits = _adapted(model, adapters)(tokens[:, :PROMPT])[:, -1]
    return logits.argmax(-1) == tokens[:, PROMPT]


@program
def _targets(model: Llama, tokens, kept, suppress, reinforce):
    """Shifted maps of every fact: important tokens are those without which it is less certain."""
    prompt = tokens[:, :PROMPT]
    logits, found = lens.run(model, prompt, record=("probs",))
    entropy = lambda logits: -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(-1)

    def without(key):
        hidden = (jnp.arange(PROMPT) == key) & (jnp.arange(PROMPT)[:, None] > key)
        edit = KeyReweight(jnp.where(hidden, 0.0, 1.0)[None, None, None])
        return entropy(lens.run(model, prompt, edits=[edit], at=last_of(prompt))[0])

    masked = jax.lax.map(without, jnp.arange(PROMPT - 1))  # the last token reads: it stays
    important = jax.vmap(token_importance)(masked.T, entropy(logits[:, -1])) > 0
    important = jnp.pad(important, ((0, 0), (0, 1)))
    amount = jnp.where(kept, reinforce, -suppress)
    return jax.vmap(shifted_target, in_axes=(1, 0, 0), out_axes=0)(
        found["probs"], important, amount
    )


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.2, sharey=True)
    for axis, name in zip(axes[0], ("shifted", "climbed"), strict=True):
        for number, what in enumerate(("to be forgotten", "to be kept")):
            values = found[name][..., number]
            rounds = np.arange(1, values.shape[1] + 1)
            axis.plot(rounds, values.T, color=COLORS[number], alpha=0.3, linewidth=1)
            axis.plot(rounds, values.mean(0), color=COLORS[number], label=what)
        title = {"shifted": "attention shifting", "climbed": "gradient ascent"}[name]
        label(axis, "twentieths of the training", "accuracy", title)
    run.save_figure(
        figure,
        "unlearning",
        "Accuracy on facts that are to be forgotten and on the others while adapters of queries "
        "and keys are trained. Thin, single models; thick, their mean.",
    )
