"""Scenes of objects in topics, and captions that say more than there is, the more the later.

A scene has a topic, whose objects are there more often than others. Each object that is there is
seen, or not; the image is one token for each that is seen, of the object and its place. A caption
is sentences of an object and a place. Each tells of an object that is there, seen or not, or, with
a probability that rises from sentence to sentence, of one that is not there: of the topic, while
there are any that have not been named.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jattn.checks import check_count

TOPICS, IN_TOPIC, PLACES, SENTENCES = 4, 6, 4, 8
OBJECTS = TOPICS * IN_TOPIC
LIKELY, RARE, UNSEEN = 0.85, 0.13, 0.25
FIRST_FALSE, LAST_FALSE = 0.02, 0.45
FEWEST = 6  # sentences
PAD, START, END = 0, 1, 2
FIRST_SEEN = 3  # tokens of the image: object and place
FIRST_OBJECT = FIRST_SEEN + OBJECTS * PLACES
FIRST_PLACE = FIRST_OBJECT + OBJECTS
VOCABULARY = FIRST_PLACE + PLACES
IMAGE = 14  # objects that are shown at most
LENGTH = IMAGE + 1 + 2 * SENTENCES + 1


class Scene(NamedTuple):
    """Scenes.

    Attributes:
        present: what is there, `[*n, objects]`.
        seen: what of it is in the image; at most `IMAGE`.
        place: where each object is, or would be.
        topic: number of the topic.
    """

    present: Bool[Array, "*n objects"]
    seen: Bool[Array, "*n objects"]
    place: Int[Array, "*n objects"]
    topic: Int[Array, "*n"]


def sample_scene(key: jax.Array) -> Scene:
    """Draws one scene.

    Example:
        >>> scene = sample_scene(jax.random.key(0))
        >>> bool((scene.seen <= scene.present).all()), scene.place.shape
        (True, (24,))
    """
    of_topic, of_present, of_seen, of_place = jax.random.split(key, 4)
    topic = jax.random.randint(of_topic, (), 0, TOPICS)
    inside = jnp.arange(OBJECTS) // IN_TOPIC == topic
    present = jax.random.bernoulli(of_present, jnp.where(inside, LIKELY, RARE))
    seen = present & jax.random.bernoulli(of_seen, 1 - UNSEEN, (OBJECTS,))
    seen = seen & (jnp.cumsum(seen) <= IMAGE)
    # Each object has a place where it mostly is.
    usual = jnp.arange(OBJECTS) % PLACES
    moved = jax.random.randint(of_place, (OBJECTS,), 0, PLACES)
    place = jnp.where(jax.random.bernoulli(of_topic, 0.5, (OBJECTS,)), usual, moved)
    return Scene(present, seen, place, topic)


def sample_caption(
    key: jax.Array, scene: Scene, *, sentences: int = SENTENCES, fewest: int = FEWEST
) -> Int[Array, " sentences"]:
    """The objects that an annotator names in one scene, in order; -1 behind the end.

    Args:
        key: draws it.
        scene: one scene.
        sentences: at most; a caption ends sooner where all that is there has been told.
        fewest: there are this many to `sentences`, each as often.

    Example:
        >>> scene = sample_scene(jax.random.key(0))
        >>> sample_caption(jax.random.key(1), scene).shape
        (8,)
    """
    check_count("sentences", sentences)
    check_count("fewest", fewest)
    of_count, of_false, of_object = jax.random.split(key, 3)
    count = jax.random.randint(of_count, (), min(fewest, sentences), sentences + 1)
    rate = jnp.linspace(FIRST_FALSE, LAST_FALSE, sentences)
    wrong = jax.random.bernoulli(of_false, rate)
    inside = jnp.arange(OBJECTS) // IN_TOPIC == scene.topic
    noise = jax.random.gumbel(of_object, (sentences, OBJECTS))

    def tell(named, given):
        number, is_wrong, draw = given
        absent, true = ~scene.present & ~named, scene.present & ~named
        false = jnp.where((absent & inside).any(), absent & inside, absent)
        may = jnp.where(is_wrong, false, true)
        go = may.any() & (number < count)
        chosen = jnp.argmax(jnp.where(may, draw, -jnp.inf))
        return named | (go & (jnp.arange(OBJECTS) == chosen)), jnp.where(go, chosen, -1)

    numbers = jnp.arange(sentences)
    _, told = jax.lax.scan(tell, jnp.zeros(OBJECTS, bool), (numbers, wrong, noise))
    over = jnp.cumsum(told < 0) > 0
    return jnp.where(over, -1, told)


def image_tokens(scene: Scene, *, visible: bool = True) -> tuple[Array, Array]:
    """Tokens of one image and START, packed in front, and how many there are.

    Args:
        scene: one scene.
        visible: False = START alone, a prompt without the image.

    Example:
        >>> image_tokens(sample_scene(jax.random.key(0)), visible=False)[0][:2].tolist()
        [1, 0]
    """
    token = FIRST_SEEN + jnp.arange(OBJECTS) * PLACES + scene.place
    shown = scene.seen & visible
    at = jnp.where(shown, jnp.cumsum(shown) - 1, IMAGE + 1)
    count = shown.sum()
    row = jnp.zeros(IMAGE + 1, jnp.int32).at[at].set(token, mode="drop")
    return row.at[count].set(START), count + 1


def sentence_tokens(
    objects: Int[Array, "*n sentences"], places: Int[Array, "*n sentences"]
) -> tuple[Int[Array, "*n t"], Int[Array, "*n"]]:
    """Tokens of captions with their end, and how many there are.

    Example:
        >>> tokens, length = sentence_tokens(jnp.array([3, -1]), jnp.array([1, 0]))
        >>> tokens.tolist() == [FIRST_OBJECT + 3, FIRST_PLACE + 1, END, 0, 0], int(length)
        (True, 3)
    """
    there = objects >= 0
    pairs = jnp.stack([FIRST_OBJECT + objects, FIRST_PLACE + places], -1)
    flat = jnp.where(there[..., None], pairs, PAD).reshape(*objects.shape[:-1], -1)
    flat = jnp.concatenate([flat, jnp.zeros_like(flat[..., :1])], -1)
    length = 2 * there.sum(-1)
    ends = jnp.arange(flat.shape[-1]) == length[..., None]
    return jnp.where(ends, END, flat).astype(jnp.int32), length + 1


def parse(tokens: Int[np.ndarray, " t"]) -> list[tuple[int, int]]:
    """Objects and places of a caption.

    Raises:
        ValueError: it is no caption.

    Example:
        >>> parse(np.array([FIRST_OBJECT + 3, FIRST_PLACE + 1, END]))
        [(3, 1)]
    """
    words = [int(token) for token in tokens if token != PAD]
    words = words[: words.index(END)] if END in words else words
    found = []
    for first, second in zip(words[::2], words[1::2], strict=False):
        if not FIRST_OBJECT <= first < FIRST_PLACE <= second < VOCABULARY:
            raise ValueError(f"tokens: expected an object and a place, got {first} and {second}")
        found.append((first - FIRST_OBJECT, second - FIRST_PLACE))
    return found
