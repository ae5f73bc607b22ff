"""A model that sees: patches of an image, a question of five words, and one word of answer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.agnosia.items import ANSWERS, FIRST, OPTIONS, QUESTIONS, Items, words
from experiments.functional import Model, as_functions, cross_entropy
from jattn import masks
from jattn.nn.blocks import Block
from jattn.nn.mixer import Mixer
from jattn.tasks import scene_items as si

PATCH, PATCHES, WORDS = 8, 16, 5


class Reader(nnx.Module):
    """A vision encoder whose patches are the prefix of a decoder; patches see each other."""

    def __init__(self, dim: int, heads: int, layers: int, *, rngs: nnx.Rngs):
        def blocks():
            mixer = lambda: Mixer("softmax_attention", dim=dim, heads=heads, rngs=rngs)
            return nnx.List([Block(mixer(), dim, 2.0, rngs=rngs) for _ in range(layers)])

        self.patches = nnx.Linear(PATCH * PATCH * 3, dim, rngs=rngs)
        self.places = nnx.Embed(PATCHES + WORDS, dim, rngs=rngs)
        self.encoder, self.decoder = blocks(), blocks()
        self.join = nnx.Linear(dim, dim, rngs=rngs)
        self.words = nnx.Embed(QUESTIONS, dim, rngs=rngs)
        self.norm = nnx.RMSNorm(dim, rngs=rngs)
        self.head = nnx.Linear(dim, ANSWERS, rngs=rngs)

    def __call__(self, images: jax.Array, question: jax.Array) -> jax.Array:
        """Logits of the words of answers, `[b, ANSWERS]`."""
        b, side = images.shape[0], images.shape[1] // PATCH
        split = images.reshape(b, side, PATCH, side, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
        place = self.places(jnp.arange(PATCHES + WORDS))
        x = self.patches(split.reshape(b, PATCHES, -1)) + place[:PATCHES]
        for block in self.encoder:
            x = block(x)
        text = self.words(question) + place[PATCHES:]
        x = jnp.concatenate([self.join(x), text], axis=1)
        mask = masks.causal() | masks.prefix(PATCHES)
        for block in self.decoder:
            x = block(x, mask=mask)
        return self.head(self.norm(x[:, -1]))


def model_of(config) -> Model:
    """The model as pure functions."""
    return as_functions(lambda rngs: Reader(config.dim, config.heads, config.layers, rngs=rngs))


def sampler(items: Items):
    """Draws an item, its aspect first: image, question and the word of its answer."""
    aspects, count, _ = items.rows.shape
    first = jnp.asarray(FIRST)

    def sample(key):
        of_aspect, of_item = jax.random.split(key)
        aspect = jax.random.randint(of_aspect, (), 0, aspects)
        row = items.rows[aspect, jax.random.randint(of_item, (), 0, count)]
        image = si.render(items.scenes[row[0]][None])[0]
        return image, words(row), first[row[1]] + row[6]

    return sample


def loss_of(model: Model):
    """Cross-entropy of the answer alone."""

    def loss(params, batch):
        images, question, answer = batch
        logits = model.module(params)(images, question)
        return cross_entropy(logits, answer, jnp.ones(len(answer)))

    return loss


def scorer(model: Model):
    """Makes `(params, items, blind=False) -> [aspects, items, 4]`: log-probabilities of options.

    Where `blind`, images are withheld: black.
    """

    @jax.jit
    def run(params, scenes, rows, bright):
        images = si.render(scenes[rows[:, 0]])
        logits = model.module(params)(images * bright, words(rows))
        logs = jax.nn.log_softmax(logits)
        place = jnp.asarray(FIRST)[rows[:, 1]][:, None] + jnp.arange(4)
        there = jnp.arange(4) < jnp.asarray(OPTIONS)[rows[:, 1]][:, None]
        found = jnp.take_along_axis(logs, jnp.minimum(place, ANSWERS - 1), axis=1)
        return jnp.where(there, found, -jnp.inf)

    def scores(params: Any, items: Items, *, blind: bool = False) -> np.ndarray:
        bright = 0.0 if blind else 1.0
        found = [run(params, items.scenes, rows, bright) for rows in items.rows]
        return np.stack([np.asarray(each) for each in found])

    return scores
