"""Rounds of preferring captions to the same ones made worse by their own author."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.self_injection.captioners import Captioner, Captions, draw_scenes
from experiments.word_models import descended
from jattn.losses.preference import dpo, margin
from jattn.systems import injection
from jattn.tasks import captioned_scenes as scenes


class Arm(NamedTuple):
    """A way to make captions worse.

    Attributes:
        rates: share of sentences that is replaced, by round.
        late: later sentences are replaced more often.
        likely: by objects that often go with one that is named; False: by any that is not.
    """

    rates: tuple[float, ...]
    late: bool = True
    likely: bool = True


class Settings(NamedTuple):
    """How pairs are made and learned: see the config.

    Attributes:
        pairs: captions a round.
        steps: of the optimiser a round.
        batch_size: pairs a step.
        learning_rate: of Adam.
        beta: of the loss.
        candidates: objects to choose a guide from.
        test: scenes that are measured.
    """

    pairs: int
    steps: int
    batch_size: int
    learning_rate: float
    beta: float
    candidates: int
    test: int


class Injected(NamedTuple):
    """Captions made worse.

    Attributes:
        captions: with other sentences where `replaced`.
        replaced: which sentences are, `[n, sentences]`.
        usable: captions that have as many sentences replaced as planned.
    """

    captions: Captions
    replaced: np.ndarray
    usable: np.ndarray


def inject(
    captioner: Captioner, params: Any, captions: Captions, arm: Arm, rate: float,
    settings: Settings, seed: int,
) -> Injected:  # fmt: skip
    """Replaces sentences of captions by some about objects that are not named; see `Arm`."""
    rng = np.random.default_rng(seed)
    objects = np.array(captions.objects)
    count, width = objects.shape
    number = np.arange(scenes.OBJECTS)
    named = (objects[..., None] == number).any(1)
    counts = injection.cooccurrence(jnp.asarray(named))
    ranked = np.asarray(injection.guide_candidates(counts, jnp.asarray(named), settings.candidates))
    replaced, usable = np.zeros((count, width), bool), np.zeros(count, bool)
    lengths = (objects >= 0).sum(1)
    for length in np.unique(lengths[lengths > 0]):
        plan = injection.injection_plan(int(length), rate, late=arm.late)
        rows = np.flatnonzero(lengths == length)
        if not plan.usable:
            continue
        noise = jnp.asarray(rng.gumbel(size=(len(rows), length)), jnp.float32)
        weights = jnp.asarray(plan.weights, jnp.float32)
        chosen = np.asarray(injection.choose_sentences(weights, noise, plan.count))
        replaced[rows[:, None], chosen] = True
        usable[rows] = True
    worse = Captions(jnp.asarray(objects), captions.places)
    for rank in range(int(replaced.sum(1).max(initial=0))):
        # The next sentence of each caption, from left to right.
        due = replaced & (replaced.cumsum(1) == rank + 1)
        rows, where = np.nonzero(due)
        for row, at in zip(rows, where, strict=True):
            keys = objects[row, ~replaced[row] & (objects[row] >= 0)]
            fresh = ~named[row] & ~np.isin(number, objects[row])
            likely = ranked[row, rng.choice(keys)]
            likely = likely[(likely >= 0) & fresh[likely]] if arm.likely else number[fresh]
            objects[row, at] = rng.choice(likely if len(likely) else number)
        all_at = due.argmax(1)
        worse = Captions(jnp.asarray(objects), worse.places)
        told = captioner.finish(params, worse, jnp.asarray(all_at))
        worse = worse._replace(places=jnp.where(jnp.asarray(due), told.places, worse.places))
    return Injected(worse, replaced, usable)


def measure(captioner: Captioner, params: Any, scene: scenes.Scene, key) -> dict[str, np.ndarray]:
    """How much captions say that is not there, in all and by sentence."""
    objects = captioner.write(params, key, scene).objects
    number = jnp.arange(scenes.OBJECTS)
    mentions = (objects[..., None] == number).sum(1)
    found = injection.chair(scene.present, mentions)
    there = jnp.take_along_axis(scene.present, jnp.maximum(objects, 0), axis=1)
    told = objects >= 0
    absent = (told & ~there).sum(0) / jnp.maximum(told.sum(0), 1)
    half = objects.shape[1] // 2
    late = (told & ~there)[:, half:].sum() / jnp.maximum(told[:, half:].sum(), 1)
    early = (told & ~there)[:, :half].sum() / jnp.maximum(told[:, :half].sum(), 1)
    values = dict(
        chair=found.instances, captions=found.sentences, recall=found.recall, late=late,
        early=early, length=told.sum(1).mean(), by_sentence=absent,
    )  # fmt: skip
    return {name: np.asarray(value) for name, value in values.items()}


@functools.cache
def _learner(captioner: Captioner, learning_rate: float, beta: float):
    """The program of a round, one for all arms: `(params, batches) -> (params, losses)`."""

    def loss(params, batch):
        scene, chosen, rejected, reference = batch
        scores = [captioner.score(params, scene, of) for of in (chosen, rejected)]
        return dpo(margin(*scores, *reference), beta=beta).mean()

    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))
    return jax.jit(lambda params, batches: descended(loss, params, batches, adam))


def improved(
    captioner: Captioner, params: Any, arm: Arm, settings: Settings, seed: int
) -> dict[str, np.ndarray]:
    """Measures before and after each round, `[rounds + 1, ...]`, and how rounds went."""
    of_test, of_write, of_rounds = jax.random.split(jax.random.key(seed), 3)
    test = draw_scenes(of_test, settings.test)
    rows = [measure(captioner, params, test, of_write)]
    notes = []

    learn = _learner(captioner, settings.learning_rate, settings.beta)
    for number, rate in enumerate(arm.rates):
        keys = jax.random.split(jax.random.fold_in(of_rounds, number))
        scene = draw_scenes(keys[0], settings.pairs)
        own = captioner.write(params, keys[1], scene)
        worse = inject(captioner, params, own, arm, rate, settings, seed + 100 * number)
        reference = tuple(captioner.score(params, scene, of) for of in (own, worse.captions))
        data = (scene, own, worse.captions, reference)
        rng = np.random.default_rng(seed + number)
        drawn = rng.choice(np.flatnonzero(worse.usable), (settings.steps, settings.batch_size))
        batches = jax.tree.map(lambda x, drawn=drawn: jnp.asarray(x)[drawn], data)
        params, losses = learn(params, batches)
        after = [captioner.score(params, scene, of) for of in (own, worse.captions)]
        gains = [np.asarray(a - r)[worse.usable] for a, r in zip(after, reference, strict=True)]
        there = np.asarray(jnp.take_along_axis(
            scene.present, jnp.maximum(worse.captions.objects, 0), axis=1
        ))  # fmt: skip
        notes.append([gains[0].mean(), gains[1].mean(), (gains[0] > gains[1]).mean(),
                      there[worse.replaced].mean(), float(losses[-1])])  # fmt: skip
        rows.append(measure(captioner, params, test, of_write))
    found = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return found | {"notes": np.array(notes)}
