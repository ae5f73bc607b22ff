"""Continuing sequences token by token."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_array, check_count, check_indices, check_number, check_shape
from jattn.nn.llama import Llama
from jattn.nn.transformer import Transformer


def generate(
    model: Transformer | Llama,
    prompt: Int[Array, "b t"],
    length: int,
    *,
    mask: Bool[Array, "b t"] | None = None,
    key: jax.Array | None = None,
    temperature: Float[Array, ""] | float = 1.0,
    top_k: int | None = None,
    top_p: Float[Array, ""] | float | None = None,
    end: int | None = None,
    pad: int | None = None,
) -> Int[Array, "b length"]:
    """Continues prompts, each new token drawn from `softmax(logits / temperature)`.

    It is compiled once for each model and shape. Prompts are read in one pass by the layers whose
    mechanism has such a form (caches are filled by its parallel form, recurrent states come out of
    its chunked form); the others, memories that train as they read among them, step through them in
    a loop of the same program.

    Args:
        model: a decoder, `Transformer` or `Llama`.
        prompt: `[b, t]`, t at least 1.
        length: tokens to add, at least 1.
        mask: True = a real token of a prompt, False = padding, before, behind or among them. Every
            row has one real token at least, and positions of its own: the result is as if it were
            alone and without padding. For prompts of some lengths, padded behind:
            `jnp.arange(t) < lengths[:, None]`.
        key: draws the tokens; None takes the likeliest one every time.
        temperature: positive; used with a key only, as are the next two.
        top_k: draw from the k likeliest tokens (and those as likely as the last of them).
        top_p: then draw from the likeliest tokens that together have this probability, > 0 and
            <= 1; the likeliest one always stays.
        end: the token that ends a row, or None.
        pad: what stands behind the end of a row; default `end`.

    Returns:
        The new tokens `[b, length]`, int32. A row whose logits become NaN has -1 from there on:
        that is an error (see below), and to be looked for where `generate` itself is traced.

    Raises:
        ValueError: an encoder, a prompt that is empty or has tokens that are not in the vocabulary,
            or more tokens than learned positions.
        FloatingPointError: NaN in the logits.

    Example:
        >>> from jattn.nn import TransformerConfig
        >>> model = Transformer(TransformerConfig(vocab_size=50, dim=16), rngs=nnx.Rngs(0))
        >>> generate(model, jnp.zeros((2, 3), int), 5).shape
        (2, 5)
    """
    sizes: dict[str, int] = {}
    check_array("prompt", prompt, "integer")
    check_shape("prompt", prompt, "b t", sizes)
    if prompt.shape[1] < 1:
        raise ValueError("prompt: expected at least one token, got none")
    check_count("length", length)
    if not isinstance(model, Transformer | Llama):
        wanted = "a jattn.nn.Transformer or Llama"
        raise ValueError(f"model: expected {wanted}, got {type(model).__name__}")
    if key is not None and not isinstance(key, jax.Array):
        raise ValueError(f"key: expected one of jax.random.key, got {key!r}")
    check_number("temperature", temperature, above=0)
    vocabulary = model.vocab_size
    if top_k is not None:
        check_count("top_k", top_k)
        top_k = min(top_k, vocabulary)
    if top_p is not None:
        check_number("top_p", top_p, above=0)
        if not isinstance(top_p, Tracer) and top_p > 1:
            raise ValueError(f"top_p: expected at most 1, got {top_p}")
    if end is not None:
        check_count("end", end, least=0)
        if end >= vocabulary:
            raise ValueError(f"end: expected 0 to {vocabulary - 1}, got {end}")
    if pad is not None:
        check_count("pad", pad, least=np.iinfo(np.int32).min)
    lengths = None
    if mask is not None:
        check_array("mask", mask, "bool")
        check_shape("mask", mask, "b t", sizes)
        lengths = mask.sum(1)
        if not isinstance(lengths, Tracer) and not np.all(lengths):
            row = int(np.argmin(lengths))
            raise ValueError(f"mask: expected a real token in every row, got none in row {row}")
        # Real tokens to the front, in order.
        prompt = jnp.where(mask, prompt, 0)
        prompt = jnp.take_along_axis(prompt, jnp.argsort(~mask, axis=1, stable=True), axis=1)
    check_indices("prompt", prompt, vocabulary)
    pad = end if pad is None else pad
    definition, variables = nnx.split(model)
    chosen = (key, temperature, top_p, end, pad)
    tokens, bad = _generate(definition, variables, prompt, lengths, length, top_k, chosen)
    if not isinstance(bad, Tracer) and np.any(np.asarray(bad) >= 0):
        row = int(np.argmax(np.asarray(bad) >= 0))
        raise FloatingPointError(f"logits: NaN in row {row}, new token {int(bad[row])}")
    return tokens


def likeliest(
    logits: Float[Array, "b vocab"],
    *,
    top_k: int | None = None,
    top_p: Float[Array, ""] | float | None = None,
) -> Float[Array, "b vocab"]:
    """Logits with -inf for all but the likeliest tokens; see `generate`.

    Args:
        logits: `[b, vocab]`.
        top_k: how many stay, and those as likely as the last of them.
        top_p: the least probability of what stays then.

    Example:
        >>> likeliest(jnp.array([[3.0, 1.0, 2.0, 0.0]]), top_k=2).tolist()
        [[3.0, -inf, 2.0, -inf]]
    """
    if top_k is not None:
        least = lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is not None:
        falling = jnp.sort(logits, axis=-1, descending=True)
        share = jax.nn.softmax(falling, axis=-1)
        before = jnp.cumsum(share, axis=-1) - share
        stays = (before < top_p).at[:, 0].set(True)
        least = jnp.min(falling, axis=-1, where=stays, initial=jnp.inf, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


@functools.partial(jax.jit, static_argnames=("definition", "length", "top_k"))
def _generate(definition, variables, prompt, lengths, length, top_k, chosen):
    """The tokens, and of each row the first new token with NaN in its logits, or -1."""
    model = nnx.merge(definition, variables)
    key, temperature, top_p, end, pad = chosen
    batch, given = prompt.shape
    # The last token is chosen and never read: no room for it is needed.
    room = given + length - 1

    def choose(logits, index):
        if key is None:
            return jnp.argmax(logits, -1)
        own = jax.random.fold_in(key, index)
        scaled = likeliest(logits / temperature, top_k=top_k, top_p=top_p)
        return jax.random.categorical(own, scaled)

    step = model.step
    if lengths is None:
        logits, state = model.prefill(prompt, model.init_state(batch, room))
    else:  # every row by itself, with a state and positions of its own

        def read(row, length):
            logits, state = model.prefill(row[None], model.init_state(1, room), length)
            return logits[0], state

        @jax.vmap
        def step(token, state):
            logits, state = model.step(token[None], state)
            return logits[0], state

        logits, state = jax.vmap(read)(prompt, lengths)

    def add(logits, index, carry):
        done, bad, tokens, _ = carry
        broken = jnp.isnan(logits).any(-1) & ~done
        bad, done = jnp.where(broken, index, bad), done | broken
        new = jnp.where(done, tokens[:, index], choose(logits, index).astype(jnp.int32))
        tokens = tokens.at[:, index].set(new)
        return done if end is None else done | (new == end), bad, tokens, new

    def extend(carry):
        index, state, added = carry
        done, *_, token = added
        logits, state = step(jnp.where(done, 0, token), state)
        return index + 1, state, add(logits, index, added)

    rows: Any = (
        jnp.zeros(batch, bool),
        jnp.full(batch, -1),
        jnp.full((batch, length), 0 if pad is None else pad, jnp.int32),
        jnp.zeros(batch, jnp.int32),
    )
    _, _, (_, bad, tokens, _) = lax.while_loop(
        lambda carry: (carry[0] < length) & ~carry[2][0].all(),
        extend,
        (1, state, add(logits, 0, rows)),
    )
    lost = (bad >= 0)[:, None] & (jnp.arange(length) >= bad[:, None])
    return jnp.where(lost, -1, tokens), bad
