"""Prompts of two tasks, as pairs that differ in one word and have different answers."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.language_model import first_tokens, program, whole
from jattn import lens
from jattn.lens.patching import attribution_patching
from jattn.nn import Llama

NAMES = ("Mary", "John", "Tom", "Anna", "Paul", "Emma", "Jack", "Lucy", "Sam", "Kate", "Mark")
PLACES = ("store", "park", "school", "office", "station", "museum", "garden", "library")
THINGS = ("drink", "book", "ring", "letter", "key", "ball", "gift", "pen")
COLORS = ("red", "blue", "green", "black", "white", "yellow", "brown", "pink", "gray", "purple")
OBJECTS = ("cup", "pen", "book", "box", "hat", "ball", "bag", "chair", "plate", "clock", "lamp")


class Prompts(NamedTuple):
    """Prompts `[n, t]`, all equally long.

    Attributes:
        clean: prompts.
        corrupt: the same with another answer.
        good: next token of the clean ones.
        bad: that of the corrupt ones.
        choices: answers that are possible, `[n, c]`, the good one first.
        place: where the good answer stands in the clean prompt.
    """

    clean: Int[Array, "n t"]
    corrupt: Int[Array, "n t"]
    good: Int[Array, " n"]
    bad: Int[Array, " n"]
    choices: Int[Array, "n c"]
    place: Int[Array, " n"]


def indirect_objects(tokenizer: Any, rng: np.random.Generator, count: int) -> Prompts:
    """`When A and B went to the park, B gave a book to`: A; corrupt: `..., A gave a book to`."""
    names, places, things = (whole(tokenizer, words) for words in (NAMES, PLACES, THINGS))
    rows = []
    for _ in range(count):
        one, two = (names[i] for i in rng.permutation(len(names))[:2])
        if rng.integers(2):  # either name may come first
            first, second = one, two
        else:
            first, second = two, one
        place, thing = rng.choice(places), rng.choice(things)
        text = lambda giver, f=first, s=second, p=place, t=thing: (
            f"When {f} and {s} went to the {p}, {giver} gave a {t} to"
        )
        rows.append((text(two), text(one), [one, two]))
    return _prompts(tokenizer, rows)


def coloured_objects(tokenizer: Any, rng: np.random.Generator, count: int) -> Prompts:
    """Three objects and the color of one; corrupt: of another one."""
    colors, objects = whole(tokenizer, COLORS), whole(tokenizer, OBJECTS)
    rows = []
    for _ in range(count):
        color = [colors[i] for i in rng.permutation(len(colors))[:3]]
        thing = [objects[i] for i in rng.permutation(len(objects))[:3]]
        asked, other, third = rng.permutation(3)
        a, b, c = (f"a {x} {y}" for x, y in zip(color, thing, strict=True))
        text = lambda one, a=a, b=b, c=c: (
            f"On the table there is {a}, {b} and {c}. The color of the {one} is"
        )
        answers = [color[asked], color[other], color[third]]
        rows.append((text(thing[asked]), text(thing[other]), answers))
    return _prompts(tokenizer, rows)


def _prompts(tokenizer, rows) -> Prompts:
    clean, corrupt = (jnp.asarray([tokenizer.encode(row[i]) for row in rows]) for i in (0, 1))
    choices = jnp.stack([first_tokens(tokenizer, row[2]) for row in rows])
    good = choices[:, 0]
    place = (clean == good[:, None]).argmax(1)
    return Prompts(clean, corrupt, good, choices[:, 1], choices, place)


def difference(logits: Float[Array, "n t vocab"], prompts: Prompts) -> Float[Array, ""]:
    """Mean of the logit of the clean answer less that of the corrupt one."""
    last, row = logits[:, -1], jnp.arange(len(logits))
    return (last[row, prompts.good] - last[row, prompts.bad]).mean()


def right(logits: Float[Array, "n t vocab"], prompts: Prompts) -> Float[Array, " n"]:
    """Whether the clean answer is the likeliest of the choices."""
    chosen = jnp.take_along_axis(logits[:, -1], prompts.choices, 1)
    return (chosen.argmax(1) == 0).astype(jnp.float32)


@program
def attributed(model: Llama, prompts: Prompts, shares) -> Float[Array, "L h"]:
    """Share of the difference between clean and corrupt that each head carries, to first order.

    EAP-IG of nodes, with as many steps as `shares` is long.
    """
    metric = lambda logits: difference(logits, prompts)
    scores = attribution_patching(model, prompts.clean, prompts.corrupt, metric, steps=len(shares))
    least, most = (metric(lens.run(model, x)[0]) for x in (prompts.corrupt, prompts.clean))
    return scores / (least - most)
