"""SITE: task embeddings injected softly, head by head (arXiv 2507.20906).

    z <- (1 - alpha) z + alpha t,   alpha = sigmoid(theta)      at the last token of the prompt

t is the mean read of each head at the end of prompts with demonstrations; theta, one a head, is
all that is trained, on prompts without any. Learning rate and number of steps are the caller's.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.lens.edits import HeadAffine
from jattn.lens.methods.method import Method


def soft_injection(
    theta: Float[Array, "L h"], task: Float[Array, "L h d"], length: int
) -> HeadAffine:
    """The edit at the last of `length` tokens.

    Args:
        theta: -inf leaves a head alone, inf replaces its read.
        task: t, the mean of `z` at the last token of prompts with demonstrations.
        length: of the prompt.
    """
    alpha = jax.nn.sigmoid(theta)[..., None]
    return HeadAffine(-alpha, alpha * task, where=(jnp.arange(length) == length - 1)[None, None])


def _example(key) -> dict:
    theta, task = jax.random.split(key)
    return dict(
        theta=jax.random.normal(theta, (2, 4)), task=jax.random.normal(task, (2, 4, 4)), length=8
    )


METHOD = Method(
    name="soft_injection",
    title="Soft injection of task embeddings outperforms prompt-based in-context learning",
    arxiv="2507.20906",
    kind="edit",
    function=soft_injection,
    example=_example,
    identity={"theta": jnp.full((2, 4), -jnp.inf)},
)
