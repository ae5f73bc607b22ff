"""Continuing a sequence token by token."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.checks import check_shape
from jattn.nn.transformer import Transformer


def generate(
    model: Transformer,
    prompt: Int[Array, "b t"],
    length: int,
    *,
    key: jax.Array | None = None,
    temperature: Float[Array, ""] | float = 1.0,
) -> Int[Array, "b length"]:
    """Continues a prompt token by token, each drawn from `softmax(logits / temperature)`.

    It is compiled once for each model and shape. The prompt is read token by token too, as a
    mechanism's state is defined by its steps.

    Args:
        model: a decoder.
        prompt: `[b, t]`, t at least 1.
        length: tokens to add, at least 1.
        key: draws the tokens; None takes the likeliest one every time.
        temperature: positive; used with a key only.

    Returns:
        The new tokens `[b, length]`, int32.

    Raises:
        ValueError: an encoder, an empty prompt, or more tokens than learned positions.

    Example:
        >>> from jattn.nn import TransformerConfig
        >>> model = Transformer(TransformerConfig(vocab_size=50, dim=16), rngs=nnx.Rngs(0))
        >>> generate(model, jnp.zeros((2, 3), int), 5).shape
        (2, 5)
    """
    check_shape("prompt", prompt, "b t", {})
    if prompt.shape[1] < 1:
        raise ValueError("prompt: expected at least one token, got none")
    if length < 1:
        raise ValueError(f"length: expected at least 1, got {length}")
    if isinstance(temperature, (int, float)) and temperature <= 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    definition, variables = nnx.split(model)
    return _generate(definition, variables, prompt, length, key, temperature)


@functools.partial(jax.jit, static_argnames=("definition", "length"))
def _generate(definition, variables, prompt, length, key, temperature):
    model = nnx.merge(definition, variables)

    def choose(logits, index):
        if key is None:
            return jnp.argmax(logits, -1)
        own = jax.random.fold_in(key, index)
        return jax.random.categorical(own, logits / temperature)

    def read(state, tokens):
        logits, state = model.step(tokens, state)
        return state, logits

    def extend(carry, index):
        tokens, state = carry
        logits, state = model.step(tokens, state)
        tokens = choose(logits, index)
        return (tokens, state), tokens

    batch, given = prompt.shape
    # The last token is chosen and never read: no room for it is needed.
    state = model.init_state(batch, given + length - 1)
    state, logits = lax.scan(read, state, prompt.T)
    first = choose(logits[-1], 0)
    _, rest = lax.scan(extend, (first, state), jnp.arange(1, length))
    return jnp.concatenate([first[:, None], rest.T], 1)
