"""Two captioners of made scenes: a log-linear one, and a small Llama that reads image tokens."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from experiments.word_models import Lesson, descended, taught, word_model
from jattn.losses import sequence_log_probability
from jattn.nn import Llama
from jattn.nn.rollout import Grammar, rollout
from jattn.tasks import captioned_scenes as scenes
from jattn.training import Run

BLIND = 0.2  # share of captions that are learned without their image: what words go with which
LINEAR = 6  # sentences of the log-linear captioner


class Captions(NamedTuple):
    """Captions; -1 where there is no sentence.

    Attributes:
        objects: that each sentence names.
        places: where it says that they are.
    """

    objects: Int[Array, "n sentences"]
    places: Int[Array, "n sentences"]


class Captioner(NamedTuple):
    """A captioner as functions of its parameters.

    Attributes:
        write: `(params, key, scene) -> Captions`, drawn at temperature 1.
        finish: `(params, captions, where) -> Captions`: the place of one sentence of each, read
            off what comes before it without the image.
        score: `(params, scene, captions) -> ` log-probabilities of captions.
    """

    write: Callable[[Any, jax.Array, scenes.Scene], Captions]
    finish: Callable[[Any, Captions, Int[Array, " n"]], Captions]
    score: Callable[[Any, scenes.Scene, Captions], Float[Array, " n"]]


def draw_scenes(key: jax.Array, count: int) -> scenes.Scene:
    """So many scenes."""
    return _draw_scenes(jax.random.split(key, count))


_draw_scenes = jax.jit(jax.vmap(scenes.sample_scene))


def linear_captioner() -> Captioner:
    """`softmax(visual_j seen_o + bias_o + previous_{o', o})`, of objects not named so far."""

    def logits(params, seen, number, before, named):
        found = params["visual"][number] * seen + params["bias"] + params["previous"][before]
        return jnp.where(named, -jnp.inf, found)

    def write(params, key, scene):
        def one(key, seen):
            def tell(carry, given):
                before, named = carry
                number, own = given
                chosen = jax.random.categorical(own, logits(params, seen, number, before, named))
                return (chosen, named.at[chosen].set(True)), chosen

            start = (jnp.array(scenes.OBJECTS), jnp.zeros(scenes.OBJECTS, bool))
            return lax.scan(tell, start, (jnp.arange(LINEAR), jax.random.split(key, LINEAR)))[1]

        objects = jax.vmap(one)(jax.random.split(key, len(scene.seen)), scene.seen)
        return Captions(objects, jnp.zeros_like(objects))

    def score(params, scene, captions):
        def one(seen, objects):
            there = objects >= 0
            before = jnp.concatenate([jnp.array([scenes.OBJECTS]), objects[:-1]])
            told = jax.nn.one_hot(objects, scenes.OBJECTS, dtype=bool)
            named = jnp.cumsum(told, 0) - told > 0
            at = jax.vmap(lambda j, o, n: logits(params, seen, j, o, n))
            logs = jax.nn.log_softmax(at(jnp.arange(LINEAR), before, named))
            own = jnp.take_along_axis(logs, jnp.maximum(objects, 0)[:, None], axis=1)[:, 0]
            return jnp.where(there, own, 0).sum()

        return jax.vmap(one)(scene.seen, captions.objects)

    finish = lambda params, captions, where: captions
    return Captioner(jax.jit(write), finish, jax.jit(score))


def linear_taught(key: jax.Array, steps: int) -> dict[str, Array]:
    """A log-linear captioner that has learned from annotators."""
    captioner = linear_captioner()
    params = {
        "visual": jnp.zeros(LINEAR),
        "bias": jnp.zeros(scenes.OBJECTS),
        "previous": jnp.zeros((scenes.OBJECTS + 1, scenes.OBJECTS)),
    }

    def loss(params, key):
        keys = jax.random.split(key, (2, 256))
        scene = jax.vmap(scenes.sample_scene)(keys[0])
        draw = functools.partial(scenes.sample_caption, sentences=LINEAR, fewest=LINEAR)
        objects = jax.vmap(draw)(keys[1], scene)
        return -captioner.score(params, scene, Captions(objects, objects)).mean()

    return jax.jit(lambda params, keys: descended(loss, params, keys, optax.adam(0.03))[0])(
        params, jax.random.split(key, steps)
    )


def caption_grammar() -> Grammar:
    """An object or the end, then a place, at most so many times; no object twice in a row."""
    count = 2 * scenes.SENTENCES + 2
    end = count - 1
    allowed = np.zeros((count, scenes.VOCABULARY), bool)
    following = np.full((count, scenes.VOCABULARY), end)
    for number in range(scenes.SENTENCES + 1):
        state = 2 * number
        if number:
            allowed[state, scenes.END] = True
        if number < scenes.SENTENCES:
            allowed[state, scenes.FIRST_OBJECT : scenes.FIRST_PLACE] = True
            following[state, scenes.FIRST_OBJECT : scenes.FIRST_PLACE] = state + 1
            allowed[state + 1, scenes.FIRST_PLACE :] = True
            following[state + 1, scenes.FIRST_PLACE :] = state + 2
    state = np.arange(count)
    return Grammar(*map(jnp.asarray, (allowed, following, state < 0, state == end)))


def row_of(scene: scenes.Scene, tokens: Array, length: Array, visible: Array | bool) -> Lesson:
    """One image, or none, and one caption behind it."""
    prompt, start = scenes.image_tokens(scene, visible=visible)  # type: ignore[arg-type]
    number = jnp.arange(len(tokens))
    at = jnp.where(number < length, start + number, scenes.LENGTH)
    row = jnp.zeros(scenes.LENGTH, jnp.int32).at[: len(prompt)].set(prompt)
    place = jnp.arange(scenes.LENGTH)
    counts = (place >= start) & (place < start + length)
    return Lesson(row.at[at].set(tokens, mode="drop"), counts)


def sample_lesson(key: jax.Array) -> Lesson:
    """An annotator's caption, behind its image or, sometimes, alone."""
    of_scene, of_caption, of_blind = jax.random.split(key, 3)
    scene = scenes.sample_scene(of_scene)
    objects = scenes.sample_caption(of_caption, scene)
    tokens, length = scenes.sentence_tokens(objects, scene.place[jnp.maximum(objects, 0)])
    return row_of(scene, tokens, length, ~jax.random.bernoulli(of_blind, BLIND))


def llama_captioner(config) -> Captioner:
    """A small Llama that reads the image's tokens in front of its caption."""
    llama = word_model(config, scenes.VOCABULARY)

    def write(params, key, scene):
        prompt, start = jax.vmap(scenes.image_tokens)(scene)
        model = Llama(llama, weights=params)
        grammar = caption_grammar()
        made = rollout(model, prompt, start, grammar, room=scenes.LENGTH, key=key)
        at = start[:, None] + jnp.arange(2 * scenes.SENTENCES)
        words = jnp.take_along_axis(made.tokens, jnp.minimum(at, scenes.LENGTH - 1), axis=1)
        over = (jnp.cumsum(words == scenes.END, 1) > 0) | (at >= made.length[:, None])
        words = words.reshape(len(words), -1, 2)
        kept = ~over[:, ::2]
        objects = jnp.where(kept, words[..., 0] - scenes.FIRST_OBJECT, -1)
        return Captions(objects, jnp.where(kept, words[..., 1] - scenes.FIRST_PLACE, -1))

    def finish(params, captions, where):
        tokens, _ = scenes.sentence_tokens(captions.objects, captions.places)
        start = jnp.full_like(tokens[:, :1], scenes.START)
        logits = Llama(llama, weights=params)(jnp.concatenate([start, tokens], 1))
        row = jnp.arange(len(tokens))
        place = logits[row, 1 + 2 * where, scenes.FIRST_PLACE :].argmax(-1)
        return captions._replace(places=captions.places.at[row, where].set(place))

    def score(params, scene, captions):
        tokens, length = scenes.sentence_tokens(captions.objects, captions.places)
        row = jax.vmap(lambda s, t, n: row_of(s, t, n, True))(scene, tokens, length)
        logits = Llama(llama, weights=params)(row.tokens)
        return sequence_log_probability(logits, row.tokens, row.counts).total

    return Captioner(jax.jit(write), jax.jit(finish), jax.jit(score))


def llama_taught(run: Run, config, seed: int) -> Any:
    """A Llama that has learned from annotators."""
    llama = word_model(config, scenes.VOCABULARY)
    return taught(run, config, llama, sample_lesson, name=f"captioner_{seed}", seed=seed)
