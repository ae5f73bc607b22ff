"""Trees of parts: reversed attention rebuilds hidden patches, and patches choose their parents.

An image has 4 parts of 4 patches, the quarters of a grid; a part has one look, which its patches
show with noise. Patches that are hidden have to be told what they look like, by the others of
their part. Nothing tells the model which patches are a part.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attention_methods.common import train
from experiments.plots import COLORS, label, panels
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.softmax import reversed_attention
from jattn.mechanisms.softmax.dependency_tree import layer_dependencies, parents
from jattn.mechanisms.softmax.layered_tree import tree
from jattn.mechanisms.softmax.reversed_attention import reversed_layer
from jattn.training import Claim, Paper, Run
from jattn.training.claims import own

PAPER = Paper("arXiv 2304.03282", "Visual dependency transformers")
SIDE, PARTS = 4, 4
PATCHES = SIDE * SIDE
# The part of each patch: which quarter of the grid it lies in.
ROW, COLUMN = np.divmod(np.arange(PATCHES), SIDE)
PART = 2 * (ROW // 2) + COLUMN // 2
OTHERS_OF_PART = (PATCHES // PARTS - 1) / (PATCHES - 1)
# Links of one tree whose subtrees are the parts that stay inside a part, of all links.
BEST_TREE = (PATCHES - PARTS) / (PATCHES - 1)


def trees(run: Run, config) -> list[Claim]:
    """Trains on hidden patches, and counts parents that lie in the child's own part."""
    settings = config.trees
    looks = jax.random.normal(jax.random.key(config.seed), (settings.looks, settings.dim))
    mixer = reversed_attention.make(dim=settings.dim, heads=settings.heads)

    def init(key):
        of_places, of_layers, of_out = jax.random.split(key, 3)
        return {
            "places": jax.random.normal(of_places, (PATCHES, settings.dim)),
            "layers": [mixer.init(key) for key in jax.random.split(of_layers, settings.layers)],
            "out": jax.random.normal(of_out, (settings.dim, settings.dim)) * settings.dim**-0.5,
        }

    def sample(key):
        of_looks, of_noise, of_hidden = jax.random.split(key, 3)
        chosen = jax.random.randint(of_looks, (PARTS,), 0, settings.looks)
        image = looks[chosen][PART]
        image += settings.noise * jax.random.normal(of_noise, image.shape)
        return image, jax.random.uniform(of_hidden, (PATCHES,)) < settings.hidden

    def rebuilt(params, image, hidden):
        """The patches, and what each receiver takes from each sender in every layer."""
        x = jnp.where(hidden[..., None], 0.0, image) + params["places"]
        message, taken = None, []
        for layer in params["layers"]:
            seen = rms_norm(x)
            taken.append(layer_dependencies(layer, seen, message, heads=settings.heads))
            told, message = reversed_layer(layer, seen, message, heads=settings.heads)
            x = x + told
        return rms_norm(x) @ params["out"], jnp.stack(taken)

    def loss(params, batch):
        image, hidden = batch
        found, _ = rebuilt(params, image, hidden)
        return jnp.mean((found - image) ** 2, where=hidden[..., None])

    test_keys = jax.random.split(jax.random.key(config.seed + 1_000_000), settings.test_size)
    test = jax.jit(jax.vmap(sample))(test_keys)

    def record(params):
        _, taken = rebuilt(params, *test)
        same = jax.vmap(lambda d: (jnp.asarray(PART)[parents(d)] == PART).mean())(taken)
        return {
            "same_part": same.mean(),
            "same_subtree": inside_parts(tree(taken.sum(0))),
            "error": loss(params, test),
        }

    result = train(run, "trees", init, loss, sample, settings, seed=config.seed, record=record)
    chosen = run.cached("trees", lambda: _parents(rebuilt, init, result.params, test, config.seed))
    _figure(run, result, chosen)
    return _claims(settings, result.history)


def inside_parts(found: jax.Array) -> jax.Array:
    """Share of a tree's links, `[b, patches]`, that join patches of one part; the root has none."""
    part, is_link = jnp.asarray(PART), found != jnp.arange(PATCHES)
    return jnp.mean(part[found] == part, where=is_link)


def _parents(rebuilt, init, params, test, seed: int) -> dict[str, jax.Array]:
    """Parents in the last layer, of the first seed and the first test image, `[patches]`."""
    image = jax.tree.map(lambda x: x[:1], test)
    chosen = jax.jit(lambda model: parents(rebuilt(model, *image)[1][-1])[0])
    untrained = jax.jit(init)(jax.random.key(seed))
    return {"before": chosen(untrained), "after": chosen(jax.tree.map(lambda x: x[0], params))}


def _claims(settings, history) -> list[Claim]:
    same, error = history["same_part"], history["error"]
    return [
        PAPER.claim(
            "trees-parents",
            "A patch's parent lies in its own part: share, least of the seeds.",
            0.6,
            float(same[-1].min()),
            ">",
            because="it is well above chance",
            note=f"{settings.seeds} seeds, mean of {settings.layers} layers; by chance "
            f"{OTHERS_OF_PART:.2f}",
        ),
        PAPER.claim(
            "trees-learned",
            "Before training it does so by chance: share, mean of the seeds.",
            OTHERS_OF_PART,
            float(same[0].mean()),
            "~=",
            0.1,
            because="it is chance, counted",
        ),
        PAPER.claim(
            "trees-across",
            "The tree of all layers joins patches of one part: share of its links, least of the "
            "seeds.",
            0.5,
            float(history["same_subtree"][-1].min()),
            ">",
            because="it is well above chance; how the tree is read is our own",
            note=f"by chance {OTHERS_OF_PART:.2f}, at most {BEST_TREE:.2f}; untrained "
            f"{history['same_subtree'][0].mean():.2f}",
        ),
        Claim(
            "trees-error",
            "Hidden patches are rebuilt: error over that before training, mean of the seeds.",
            own("half is a clear fall"),
            0.5,
            float((error[-1] / error[0]).mean()),
            "<",
        ),
    ]


def _figure(run: Run, result, chosen) -> None:
    figure, axes = panels(1, 3, width=2.8, height=2.8)
    for axis, name, title in zip(
        axes[0], ("before", "after"), ("untrained", "trained"), strict=False
    ):
        axis.set_axis_off()
        axis.set_title(f"parents, {title}", fontsize=10)
        axis.scatter(COLUMN, -ROW, s=160, c=[COLORS[p] for p in PART], marker="s", zorder=1)
        for child, parent in enumerate(chosen[name]):
            inside = PART[child] == PART[parent]
            axis.annotate(
                "",
                xy=(COLUMN[parent], -ROW[parent]),
                xytext=(COLUMN[child], -ROW[child]),
                arrowprops={
                    "arrowstyle": "->",
                    "color": "black" if inside else "#bbbbbb",
                    "connectionstyle": "arc3,rad=0.25",
                },
                zorder=3 if inside else 2,
            )
        axis.set_aspect("equal")
        axis.margins(0.15)
    last = axes[0, 2]
    last.plot(result.steps, result.history["same_part"], color=COLORS[0], linewidth=1)
    last.axhline(0.6, color="black", linestyle="--", linewidth=0.8)
    last.axhline(OTHERS_OF_PART, color="#666666", linestyle=":", linewidth=0.8)
    last.set_ylim(0, 1.02)
    label(last, "step", "parents in the same part")
    run.save_figure(
        figure,
        "trees_of_parts",
        "Every patch points to its parent, the receiver that takes most from it, black where that "
        "lies in the same part (colour). Right: the share of such parents, one line a seed, with "
        "chance dotted.",
    )
