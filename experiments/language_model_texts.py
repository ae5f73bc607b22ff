"""Texts that experiments on the language model read, and how well it predicts them."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.language_model import Texts, program
from jattn import lens
from jattn.lens.readouts import token_losses
from jattn.nn import Llama

STORY = (
    "The old lighthouse keeper climbed the spiral stairs every evening at dusk. He carried a "
    "small lantern, a loaf of bread, and a notebook in which he wrote down the names of passing "
    "ships. One winter night a storm broke the great lamp, and the keeper had to light the lantern "
    "instead. He stood at the window until morning, holding the lantern above his head, and no "
    "ship was lost. In the spring the sailors brought him a new lamp, and the keeper wrote their "
    "names in the notebook."
)
CODE = (
    "def fibonacci(n):\n    a, b = 0, 1\n    for i in range(n):\n        a, b = b, a + b\n"
    "    return a\n\nprint(fibonacci(10))\n"
)
FACTS = (
    "Water boils at a lower temperature on a high mountain, because the pressure of the air is "
    "lower there. Cooks who live far above the sea know this well, and they leave their beans and "
    "potatoes in the pot for longer than their friends in the valley."
)
DIALOGUE = (
    '"Did you remember to bring the map?" asked Clara. "I thought that you had it," said Tom, and '
    "he opened his bag to look once more. There was a bottle of water, two apples and a torch, but "
    "no map. They sat down on a stone and waited for the rain to stop."
)
LETTER = (
    "Dear neighbours, on Saturday we are going to repair the fence between the two gardens. It "
    "will be noisy in the morning, for which we are sorry. If you would like to help, please bring "
    "a hammer and some good humour. There will be soup and cake for everybody at noon."
)
TEXTS = {"story": STORY, "code": CODE, "facts": FACTS, "dialogue": DIALOGUE, "letter": LETTER}


@program
def losses(
    model: Llama, tokens: Int[Array, "b t"], edits: Sequence[lens.Edit] = ()
) -> Float[Array, "b n"]:
    """-log p of every token but the first, of an edited model."""
    return token_losses(lens.run(model, tokens, edits=edits)[0], tokens)


def mean_losses(logits: Float[Array, "n t vocab"], texts: Texts) -> Float[Array, " n"]:
    """Mean of -log p of each text's tokens but the first, whatever it is padded with."""
    each = token_losses(logits, texts.tokens)
    real = jnp.arange(each.shape[1]) < texts.last[:, None]
    return each.mean(1, where=real)


def tokens_of(tokenizer: Any, text: str, length: int | None = None) -> Int[Array, "1 t"]:
    """A text as a batch of one, at most so many tokens of it."""
    return jnp.asarray(tokenizer.encode(text)[:length])[None]


def excerpts(tokenizer: Any, texts: Sequence[str], length: int) -> Int[Array, "n t"]:
    """The beginnings of texts, equally long, so that they can be read side by side.

    Those that are too short are left out.
    """
    found = [tokenizer.encode(text)[:length] for text in texts]
    return jnp.asarray([ids for ids in found if len(ids) == length])


def repeated(rng: np.random.Generator, vocabulary: int, count: int, period: int) -> np.ndarray:
    """Sequences `[first, r_1 .. r_T, r_1 .. r_T]` of random tokens, `[count, 1 + 2 T]`.

    The first token is number 0; the others differ within a sequence, so that each has one place
    where it was seen before.
    """
    rows = [rng.choice(np.arange(1, vocabulary), period, replace=False) for _ in range(count)]
    return np.stack([np.concatenate([[0], row, row]) for row in rows]).astype(np.int32)
