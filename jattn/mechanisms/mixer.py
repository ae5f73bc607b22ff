"""Mixers: pairs of pure functions, the parts they are built from, and what streams with them."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

Params = PyTree[Array]

NO_STEP = "mechanism: expected one with a step form, as streaming ones made with causal=True have"


class Apply(Protocol):
    """`(params, x) -> y`, the whole sequence at once."""

    def __call__(
        self,
        params: Params,
        x: Float[Array, "b t m"],
        /,
        *,
        context: Float[Array, "b s m"] | None = None,
        mask: Any = None,
        positions: Int[Array, "b t"] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b t m"]: ...


class Auxiliary(NamedTuple):
    """Losses and statistics of a mixer in training, besides its output.

    Attributes:
        losses: scalars by name, each to be added to the task's loss times a small weight.
        statistics: the next values of its `Mixer.statistics`, by the same names.
    """

    losses: dict[str, Float[Array, ""]]
    statistics: dict[str, Array]


class Parts(NamedTuple):
    """The parts of a mixer, `y = output(params, core(project(params, x, source)), x)`.

    A frame builds a mixer's functions from them, so whoever wants to change one of them, such as a
    combinator or an intervention, replaces it and lets the frame build the mixer again:

        edit_parts(mixer, lambda parts: parts._replace(output=...))

    Attributes:
        project: `(params, x, source) -> maps`, linear maps of tokens by the names of their weights,
            `{"query": [b, t, c], "key": [b, s, c], ...}`, before heads are split, normed or
            rotated. x `[b, t, m]` asks, and source `[b, s, m]` is looked at. What the weights of
            `query` make of the source is `"query/source"`.
        core: mixes tokens. Its arguments are those of the frame: `attention_mixer`,
            `recurrent_mixer` or `linear_mixer`; None where it is not one function.
        output: `(params, mixed, x) -> y`, from merged heads `[b, t, c]` to `[b, t, m]`.
    """

    project: Callable[[Params, Array, Array], dict[str, Array]]
    core: Callable[..., Any] | None
    output: Callable[[Params, Array, Array], Array]


class Mixer(NamedTuple):
    """A token mixer as pure functions; compare `optax.GradientTransformation`.

    Attributes:
        init: `(key) -> params`, a plain pytree of named arrays.
        apply: `(params, x, *, context, mask, positions, key) -> y`, `[b, t, m] -> [b, t, m]`.
            `context` `[b, s, m]` is what to attend to (None: `x` itself). `mask` is a bool array
            `[b, s]` (True = a real token, False = padding), or says the same as
            `jattn.masks.padding(real)`, as it must where b = t and it could mean `[t, s]`.
            Mechanisms over the softmax-like engine take any `jattn.masks.Mask` and bool arrays
            `[b, h, t, s]`; recurrent ones take packed documents, `jattn.masks.segments(ids)`; what
            a mechanism cannot honour throughout, it refuses. `positions` `[b, t]` are for
            mechanisms that use them (default 0, 1, 2, ...). `key` is for those that draw random
            numbers.
        init_state: `(params, batch_size, max_length, *, dtype) -> state`, an empty streaming state
            for tokens of a dtype (default that of the parameters), to which what a cache keeps is
            rounded; sums are float32 at least. None where the mechanism has no causal step form.
        step: `(params, x, state) -> (y, state)`, one token `[b, m] -> [b, m]`.
        prefill: `(params, x, state, length) -> (y, state)`, many tokens `[b, t, m]` at once, into
            an empty state; those from `length` on are padding, in all rows, and leave no trace in
            it. None where there is no such form: `prefill` below then steps.
        auxiliary: `(params, x, *, context, mask, positions, key) -> Auxiliary`, with the arguments
            of `apply`; None where there is nothing to say. It is a function of its own because it
            depends on the input alone; what both compute, XLA computes once.
        statistics: which parameters are averages over training: no gradient reaches them, and an
            optimizer must not move them. A name, or a path as in `"short/average"`.
        parts: what it is built from; None where it is not. Those of a combinator are its mixer's.
        rebuild: `(parts) -> Mixer`, the same around other parts.
    """

    init: Callable[[jax.Array], Params]
    apply: Apply
    init_state: Callable[..., Any] | None = None
    step: Callable[[Params, Float[Array, "b m"], Any], tuple[Float[Array, "b m"], Any]] | None = (
        None
    )
    prefill: Callable[..., tuple[Float[Array, "b t m"], Any]] | None = None
    auxiliary: Callable[..., Auxiliary] | None = None
    statistics: tuple[str, ...] = ()
    parts: Parts | None = None
    rebuild: "Callable[[Parts], Mixer] | None" = None


def edit_parts(mixer: Mixer, edit: Callable[[Parts], Parts]) -> Mixer:
    """The same mixer with some of its parts replaced; combinators around it stay.

    Args:
        mixer: one with parts.
        edit: from its parts to those that it shall have.

    Raises:
        ValueError: a mixer without parts.

    Example:
        >>> import jattn
        >>> mixer = jattn.zoo.make("softmax_attention", dim=8, heads=2)
        >>> silence = lambda params, mixed, x: jnp.zeros_like(x)
        >>> silent = edit_parts(mixer, lambda parts: parts._replace(output=silence))
        >>> float(abs(silent.apply(mixer.init(jax.random.key(0)), jnp.ones((1, 3, 8)))).max())
        0.0
    """
    parts = parts_of(mixer)
    assert mixer.rebuild is not None
    return mixer.rebuild(edit(parts))


def parts_of(mixer: Mixer) -> Parts:
    """The parts of a mixer.

    Raises:
        ValueError: it has none.
    """
    if mixer.parts is None:
        raise ValueError("mixer: expected one with parts (project, core, output), got one without")
    return mixer.parts


def replace_fields(mixer: Mixer, **fields: Any) -> Mixer:
    """The mixer with other fields, which it keeps when its parts are replaced."""
    rebuild = mixer.rebuild
    if rebuild is None:
        return mixer._replace(**fields)
    again = lambda parts: replace_fields(rebuild(parts), **fields)
    return mixer._replace(**fields, rebuild=again)


def prefill(
    mixer: Mixer,
    params: Params,
    x: Float[Array, "b t m"],
    state: Any,
    length: Int[Array, ""] | int | None = None,
) -> tuple[Float[Array, "b t m"], Any]:
    """Reads many tokens: in one pass if the mixer has `prefill`, else step by step in one loop.

    Args:
        mixer: one that streams.
        params: its parameters.
        x: the first tokens of all, `[b, t, m]`.
        state: an empty state, as `init_state` gives it.
        length: how many tokens are real, in all rows; what comes behind them is padding, leaves no
            trace in the state, and its outputs mean nothing. Default all.

    Returns:
        `(y, state)`: `[b, t, m]`, and the state after `length` tokens.

    Raises:
        ValueError: the mixer has no step form.

    Example:
        >>> import jattn, jax.numpy as jnp
        >>> mixer = jattn.zoo.make("retention", dim=8, heads=2, causal=True)
        >>> params = mixer.init(jax.random.key(0))
        >>> y, state = prefill(mixer, params, jnp.ones((1, 5, 8)), mixer.init_state(params, 1, 9))
        >>> y.shape, int(state.position)
        ((1, 5, 8), 5)
    """
    step = mixer.step
    if step is None:
        raise ValueError(NO_STEP)
    length = x.shape[1] if length is None else length
    if mixer.prefill is not None:
        return mixer.prefill(params, x, state, length)
    all_real = isinstance(length, int) and length >= x.shape[1]

    def read(state, token):
        index, now = token
        y, after = step(params, now, state)
        if not all_real:
            after = jax.tree.map(lambda a, b: jnp.where(index < length, a, b), after, state)
        return after, y

    tokens = (jnp.arange(x.shape[1]), jnp.moveaxis(x, 1, 0))
    state, y = lax.scan(read, state, tokens)
    return jnp.moveaxis(y, 0, 1), state


def first_tokens(length: Any, x: Float[Array, "b t m"]) -> Bool[Array, "b t"] | None:
    """The first `length` tokens of every row as the real ones; None if that is all of them."""
    if isinstance(length, int) and length >= x.shape[1]:
        return None
    return jnp.broadcast_to(jnp.arange(x.shape[1]) < length, x.shape[:2])


def last_tokens(
    past: Float[Array, "b before m"], x: Float[Array, "b t m"], length: Any
) -> Float[Array, "b before m"]:
    """The newest of the past and the first `length` tokens, as many as the past holds."""
    seen = jnp.concatenate([past, x.astype(past.dtype)], axis=1)
    return lax.dynamic_slice_in_dim(seen, length, past.shape[1], axis=1)
