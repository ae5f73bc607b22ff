"""Readers of made-up reviews: an LSTM in both directions with additive attention, trained as they
are, against perturbations of attention (AT), or with unlabelled reviews (VAT).

A review has three words that count among others that do not: two of its own side, one of the other.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from experiments.functional import Model, as_functions
from experiments.plots import COLORS, label, panels
from jattn.lens.methods.attention_perturbation import attention_perturbation
from jattn.training import Claim, Paper, Run, fit

ADVERSARIAL = Paper("arXiv 2009.12064", "Attention meets perturbations")
VIRTUAL = Paper("arXiv 2104.08763", "Making attention mechanisms more robust by VAT")
KINDS = ("plain", "adversarial", "few labels", "virtual")


class Reviews(NamedTuple):
    """Reviews and whether they are good."""

    tokens: Int[Array, "*batch t"]
    good: Float[Array, "*batch"]


class Batch(NamedTuple):
    """What a step sees."""

    labelled: Reviews
    unlabelled: Reviews


class Reader(nnx.Module):
    """Says how good a review is: `w . sum_i alpha_i h_i`, alpha = softmax of `u . tanh(W h_i)`."""

    def __init__(self, vocabulary: int, dim: int, hidden: int, *, rngs: nnx.Rngs):
        self.embed = nnx.Embed(vocabulary, dim, rngs=rngs)
        gates = lambda: nnx.Linear(dim + hidden, 4 * hidden, rngs=rngs)
        self.forwards, self.backwards = gates(), gates()
        self.inner = nnx.Linear(2 * hidden, hidden, rngs=rngs)
        self.outer = nnx.Linear(hidden, 1, use_bias=False, rngs=rngs)
        self.head = nnx.Linear(2 * hidden, 1, rngs=rngs)

    def read(self, embedded):
        """States `[b, t, 2 hidden]`, and logits of attention `[b, t]`."""
        back = jnp.flip(lstm(self.backwards, jnp.flip(embedded, 1)), 1)
        states = jnp.concatenate([lstm(self.forwards, embedded), back], -1)
        return states, self.outer(jnp.tanh(self.inner(states)))[..., 0]

    def answer(self, states, logits):
        """How good, `[b]`, a logit."""
        return self.head(jnp.einsum("bt,bth->bh", jax.nn.softmax(logits), states))[..., 0]


def lstm(gates: nnx.Linear, x: Float[Array, "b t m"]) -> Float[Array, "b t h"]:
    """States of an LSTM whose four gates are one linear map of input and state.

    Flax's own keeps a random stream among its state, which `fit` would differentiate.
    """
    hidden = jnp.zeros((len(x), gates.out_features // 4), x.dtype)

    def step(state, x):
        h, c = state
        i, f, g, o = jnp.split(gates(jnp.concatenate([x, h], -1)), 4, -1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    _, states = jax.lax.scan(step, (hidden, hidden), jnp.swapaxes(x, 0, 1))
    return jnp.swapaxes(states, 0, 1)


def readers(run: Run, config) -> list[Claim]:
    """Trains readers in four manners on the same reviews."""
    rows = {kind: trained(run, config, kind) for kind in KINDS}
    _draw(run, rows)
    plain, adversarial = rows["plain"], rows["adversarial"]
    few, virtual = rows["few labels"], rows["virtual"]
    return [
        ADVERSARIAL.claim(
            "at-gradients",
            "Trained against perturbations, attention agrees more with the gradients of words: "
            "mean correlation over reviews.",
            float(plain["agreement"].mean()),
            float(adversarial["agreement"].mean()),
            ">",
            because="it is that of the plain reader in this run",
            seeds=adversarial["agreement"],
        ),
        ADVERSARIAL.claim(
            "at-accuracy",
            "It costs no more than a point of accuracy.",
            float(plain["accuracy"].mean()) - 0.01,
            float(adversarial["accuracy"].mean()),
            ">=",
            because="it is a point below the plain reader's in this run",
            note=f"plain {plain['accuracy'].mean():.3f}",
        ),
        VIRTUAL.claim(
            "vat-accuracy",
            f"With {config.reviews.labelled} labels, unlabelled reviews do not hurt: accuracy.",
            float(few["accuracy"].mean()),
            float(virtual["accuracy"].mean()),
            ">=",
            because="it is that without them in this run",
            note="by seed "
            + ", ".join(
                f"{a:.3f} and {b:.3f}"
                for a, b in zip(few["accuracy"], virtual["accuracy"], strict=True)
            ),
        ),
    ]


def review(key: jax.Array, config) -> Reviews:
    """Draws one review: words below `keywords` are good, as many above them bad."""
    side, words, place, other = jax.random.split(key, 4)
    keywords, length = config.keywords, config.length
    good = jax.random.bernoulli(side)
    own = jax.random.randint(words, (3,), 0, keywords)
    sides = jnp.array([good, good, ~good])
    chosen = jnp.where(sides, own, own + keywords)
    filler = jax.random.randint(other, (length,), 2 * keywords, config.vocabulary)
    at = jax.random.permutation(place, length)[:3]
    return Reviews(filler.at[at].set(chosen), good.astype(jnp.float32))


def model_of(config) -> Model:
    """The reader as pure functions."""
    settings = config.readers
    return as_functions(
        lambda rngs: Reader(config.reviews.vocabulary, settings.dim, settings.hidden, rngs=rngs)
    )


def loss_of(model: Model, params: Any, batch: Batch, kind: str, settings) -> Float[Array, ""]:
    """What a manner of training minimises."""
    module = model.module(params)
    states, logits = module.read(module.embed(batch.labelled.tokens))
    given = lambda moved: optax.sigmoid_binary_cross_entropy(
        module.answer(states, moved), batch.labelled.good
    )
    loss = given(logits).mean()
    if kind == "adversarial":
        moved = attention_perturbation(
            lambda a: given(a).sum(), jax.lax.stop_gradient(logits), eps=settings.adversarial
        )
        loss = loss + given(logits + moved).mean()
    if kind == "virtual":
        states, logits = module.read(module.embed(batch.unlabelled.tokens))
        answers = jax.lax.stop_gradient(module.answer(states, logits))
        change = lambda a: _divergence(answers, module.answer(states, a))
        key = jax.random.key(jnp.abs(batch.unlabelled.tokens).sum())
        moved = attention_perturbation(
            lambda a: change(a).sum(),
            jax.lax.stop_gradient(logits),
            eps=settings.virtual,
            kind="vat",
            key=key,
        )
        loss = loss + change(logits + moved).mean()
    return loss


def _divergence(one: Array, other: Array) -> Array:
    """KL of two answers, given by their logits."""
    p, log = jax.nn.sigmoid(one), jax.nn.log_sigmoid
    return p * (log(one) - log(other)) + (1 - p) * (log(-one) - log(-other))


def trained(run: Run, config, kind: str) -> dict[str, np.ndarray]:
    """Accuracy and agreement of attention with gradients, `[seeds]` each."""
    settings, reviews = config.readers, config.reviews
    model = model_of(config)
    draw = lambda seed, count: jax.vmap(lambda key: review(key, reviews))(
        jax.random.split(jax.random.key(seed), count)
    )
    train, test = draw(config.seed, reviews.train), draw(config.seed + 1, reviews.test)
    known = reviews.labelled if kind in ("few labels", "virtual") else reviews.train

    def sample(key):
        one, other = jax.random.split(key)
        pick = lambda key, count: jax.tree.map(
            lambda x: x[jax.random.randint(key, (), 0, count)], train
        )
        return Batch(pick(one, known), pick(other, reviews.train))

    name = f"reader_{kind.replace(' ', '_')}"
    params = fit(
        model.init,
        lambda params, batch: loss_of(model, params, batch, kind, settings),
        sample,
        optax.adam(settings.learning_rate),
        run=run,
        name=name,
        seeds=settings.seeds,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=config.seed,
        log_every=max(settings.steps // 20, 1),
    ).params

    def tested():
        accuracy, agreement = jax.vmap(lambda params: measured(model, params, test))(params)
        return {"accuracy": np.asarray(accuracy), "agreement": np.asarray(agreement)}

    return run.cached(name, tested)


def measured(model: Model, params: Any, test: Reviews) -> tuple[Array, Array]:
    """Accuracy, and the mean correlation of attention with the gradients' lengths."""
    module = model.module(params)
    embedded = module.embed(test.tokens)
    answers = lambda embedded: module.answer(*module.read(embedded))
    grads = jax.grad(lambda x: answers(x).sum())(embedded)
    importance = jnp.linalg.norm(grads, axis=-1)
    attention = jax.nn.softmax(module.read(embedded)[1])
    center = lambda x: x - x.mean(-1, keepdims=True)
    unit = lambda x: center(x) / jnp.linalg.norm(center(x), axis=-1, keepdims=True)
    agreement = (unit(attention) * unit(importance)).sum(-1).mean()
    return ((answers(embedded) > 0) == (test.good > 0)).mean(), agreement


def _draw(run: Run, rows: dict[str, dict[str, np.ndarray]]) -> None:
    figure, axes = panels(1, 2, width=3.2)
    for axis, field in zip(axes[0], ("accuracy", "agreement"), strict=True):
        for number, row in enumerate(rows.values()):
            axis.bar(number, row[field].mean(), color=COLORS[number], alpha=0.5)
            axis.scatter([number] * len(row[field]), row[field], color=COLORS[number], s=12)
        axis.set_xticks(range(len(rows)), list(rows), rotation=25, fontsize=8)
    label(axes[0, 0], "", "accuracy")
    label(axes[0, 1], "", "attention with gradients, correlation")
    run.save_figure(
        figure,
        "readers",
        "Readers by manner of training: accuracy on new reviews, and how far attention agrees with "
        "the gradients of words. Points are seeds.",
    )
