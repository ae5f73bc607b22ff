"""Encoders that read documents: training them, replacing their layers, a figure."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.functional import Model, as_functions, optimizer, training_loss
from experiments.plots import COLORS, label, panels
from jattn.mechanisms.softmax.hierarchical_attention import balanced_tree
from jattn.nn import Transformer, TransformerConfig
from jattn.nn.transformer import Layer
from jattn.tasks.negated_phrases import WORDS_A_PHRASE, negated_phrases, vocabulary_of
from jattn.training import Run, fit

SOFTMAX, TREE, ACROSS = NAMES = ("softmax", "tree", "tree_across_phrases")


def layers_of(config) -> dict[str, Layer]:
    """The mechanism of all layers, by the encoder's name."""
    return {
        SOFTMAX: "softmax_attention",
        TREE: ("hierarchical_attention", {"branching": WORDS_A_PHRASE}),
        ACROSS: ("hierarchical_attention", {"branching": config.across}),
    }


def replaced(layers: int, first: int) -> list[Layer]:
    """Softmax attention, and the tree in its place in so many of the first layers."""
    # Queries and keys stay as the softmax layer learned to make them.
    tree = ("hierarchical_attention", {"branching": WORDS_A_PHRASE, "qk_norm": False})
    return [tree if layer < first else "softmax_attention" for layer in range(layers)]


def encoder(config, mechanisms) -> Model:
    """An encoder with these mechanisms, as pure functions."""
    settings = TransformerConfig(
        vocab_size=vocabulary_of(config.words),
        dim=config.dim,
        heads=config.heads,
        layers=config.layers,
        mechanisms=mechanisms,
        causal=False,
        max_length=config.phrases * WORDS_A_PHRASE,
        tie_embeddings=False,
    )
    return as_functions(lambda rngs: Transformer(settings, rngs=rngs))


def answer(logits: jax.Array) -> jax.Array:
    """Logits of negative and positive `[b, 2]`: the mean over words of the first two outputs."""
    return logits[..., :2].mean(1)


def trained(run: Run, config, name: str) -> dict[str, np.ndarray]:
    """Accuracy on new documents and on the training set, `[seeds]`.

    With softmax attention also `replaced` `[layers + 1, seeds]`: on the training set, by how many
    layers the tree replaces. On new documents that encoder may guess, and has nothing to lose.
    """
    model = encoder(config, layers_of(config)[name])
    draw = jax.vmap(negated_phrases(config.phrases, config.words))
    first, second = jax.random.split(jax.random.key(config.seed + 1_000_000))
    known = draw(jax.random.split(first, config.documents))
    new = draw(jax.random.split(second, config.test_size))

    def sample(key):
        index = jax.random.randint(key, (), 0, config.documents)
        return jax.tree.map(lambda x: x[index], known)

    def loss(params, batch):
        def of_logits(logits):
            found = answer(logits)
            return optax.softmax_cross_entropy_with_integer_labels(found, batch.positive).mean()

        return training_loss(model, params, batch.tokens, of_logits)

    params = fit(
        model.init,
        loss,
        sample,
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=name,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(config.steps // 20, 1),
    ).params

    def accuracy(model: Model, documents) -> np.ndarray:
        @jax.jit
        def right(params):
            found = answer(model.module(params)(documents.tokens)).argmax(-1)
            return (found == documents.positive).mean()

        return np.stack([np.asarray(right([p[i] for p in params])) for i in range(config.seeds)])

    def tested():
        result = {"new": accuracy(model, new), "known": accuracy(model, known)}
        if name == SOFTMAX:
            steps = range(1, config.layers + 1)
            others = [encoder(config, replaced(config.layers, count)) for count in steps]
            each = [accuracy(other, known) for other in others]
            result["replaced"] = np.stack([result["known"], *each])
        return result

    return run.cached(name, tested)


def weights_of_tree(length: int) -> int:
    """Weights that the tree of phrases needs, where softmax attention needs length^2.

    Scores and sums of values cost the same for each weight, so their ratio is that of the FLOPs.
    """
    return sum(
        family.shape[0] * family.shape[1] ** 2 for family in balanced_tree(length, WORDS_A_PHRASE)
    )


def compiled_ratio(config) -> float:
    """FLOPs of one encoder's forward pass with the tree over those with softmax, as compiled."""
    tokens = jnp.zeros((1, config.phrases * WORDS_A_PHRASE), jnp.int32)

    def flops(name: str) -> float:
        model = encoder(config, layers_of(config)[name])
        params = jax.eval_shape(model.init, jax.random.key(0))
        analysis = jax.jit(lambda p: model.module(p)(tokens)).lower(params).compile()
        return float((analysis.cost_analysis() or {}).get("flops", np.nan))

    return flops(TREE) / flops(SOFTMAX)


def draw(run: Run, rows: dict[str, dict[str, np.ndarray]]) -> None:
    """Saves a figure of accuracy, from scratch and by layers replaced."""
    figure, (row,) = panels(1, 2, width=3.4)
    for number, results in enumerate(rows.values()):
        row[0].bar(number, results["new"].mean(), 0.6, color=COLORS[number])
        row[0].plot([number] * len(results["new"]), results["new"], "k.", markersize=4)
    row[0].set_xticks(range(len(rows)), [name.replace("_", "\n") for name in rows])
    row[0].set_ylim(0.45, 1.01)
    label(row[0], "", "accuracy on new documents", "trained from scratch")
    zero_shot = rows[SOFTMAX]["replaced"]
    row[1].plot(zero_shot, "o-", color=COLORS[1], alpha=0.7)
    row[1].axhline(0.5, color="black", linewidth=0.6, linestyle="--")
    row[1].set_xticks(range(len(zero_shot)))
    row[1].set_ylim(0.45, 1.01)
    label(row[1], "layers replaced, from the first", "accuracy on learned documents", "zero-shot")
    run.save_figure(
        figure,
        "accuracy",
        "Left: encoders trained on the same documents; dots are seeds. Right: the softmax encoder "
        "with the tree in place of softmax in some layers, without further training, on the "
        "documents it learned; a line a seed, dashed: guessing.",
    )
