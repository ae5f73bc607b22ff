"""The frame of all mixers: what they are given is checked, cleaned and laid out in one place."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jattn.checks import check_array, check_count, check_flag, check_key, check_shape
from jattn.mechanisms.frames.checks import check_parameters, check_tokens, shapes_of
from jattn.mechanisms.frames.tokens import Given, lay_out, take_tokens
from jattn.mechanisms.mixer import Mixer, Params, Parts
from jattn.sharding import divided_by_compiler


def framed(
    name: str,
    *,
    dim: int,
    init: Callable[[jax.Array], Params],
    apply: Callable[[Any, Given], Array],
    init_state: Callable[[Any, int, int, Any], Any] | None = None,
    step: Callable[[Any, Array, Any], tuple[Array, Any]] | None = None,
    prefill: Callable[..., tuple[Array, Any]] | None = None,
    takes: str,
    causal: bool,
    cross: bool = False,
    any_size: bool = False,
    expected: Callable[[], Any] | None = None,
) -> Mixer:
    """A `Mixer` whose arguments are checked, and whose padding is out of the way.

    Args:
        name: the mechanism's name, for messages.
        dim: model dimension m.
        init: as in `Mixer`.
        apply: `(params, given) -> y`, `[b, t, m]`.
        init_state: `(params, batch_size, max_length, dtype) -> state`; None: it does not stream.
        step, prefill: as in `Mixer`. Where `prefill` goes on from any state, `step` may be None: it
            is one token of that.
        takes: which masks; see `jattn.mechanisms.frames.tokens`.
        causal: whether it is; then a mask that says so, too, is nothing new.
        cross: whether it takes a context.
        any_size: parameters may have other shapes than those that are made.
        expected: gives the shapes of the parameters; default those that `init` makes.
    """
    check_flag("causal", causal)
    expected = shapes_of(init) if expected is None else expected

    def framed_apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        check_parameters(name, params, expected(), any_size=any_size)
        if context is not None and not cross:
            raise ValueError(f"context: {name} mixes x with itself only; expected None")
        check_tokens(dim, x, context, positions)
        check_key(key)

        def mix(x, params, context, mask, positions, key):
            laid = lay_out(name, x, context, mask, positions, key, takes=takes, causal=causal)
            given, back = laid
            if not (x.size and given.source.size):
                return jnp.zeros_like(x)
            y = apply(params, given)
            return y if back is None else take_tokens(y, back)

        return divided_by_compiler(mix, jnp.asarray(x), params, context, mask, positions, key)

    if step is None and prefill is not None:
        step = _one_token_of(prefill)
    if init_state is None or step is None:
        return Mixer(init, framed_apply)

    def framed_state(params, batch_size, max_length, *, dtype: DTypeLike | None = None):
        check_parameters(name, params, expected(), any_size=any_size)
        check_count("batch_size", batch_size, 0)
        check_count("max_length", max_length)
        dtype = jnp.result_type(*jax.tree.leaves(params)) if dtype is None else jnp.dtype(dtype)
        return init_state(params, batch_size, max_length, dtype)

    def framed_step(params, x, state):
        check_parameters(name, params, expected(), any_size=any_size)
        check_array("x", x, "floating")
        check_shape("x", x, "b m", {"m": dim})
        return _as_it_came(state, *step(params, x, state))

    if prefill is None:
        return Mixer(init, framed_apply, framed_state, framed_step)

    def framed_prefill(params, x, state, length):
        check_parameters(name, params, expected(), any_size=any_size)
        check_tokens(dim, x)
        return _as_it_came(state, *prefill(params, x, state, length))

    return Mixer(init, framed_apply, framed_state, framed_step, framed_prefill)


def framed_parts(
    name: str,
    parts: Parts,
    *,
    init: Callable[[jax.Array], Params],
    apply: Callable[[Parts, Any, Given], Array],
    init_state: Callable[[Parts, Any, int, int, Any], Any] | None = None,
    step: Callable[[Parts, Any, Array, Any], tuple[Array, Any]] | None = None,
    prefill: Callable[..., tuple[Array, Any]] | None = None,
    **options: Any,
) -> Mixer:
    """A `framed` mixer whose functions are of its parts, which can be replaced.

    Args:
        name: the mechanism's name, for messages.
        parts: see `Parts`.
        init: as in `Mixer`.
        apply, init_state, step, prefill: as in `framed`, with the parts in front.
        **options: those of `framed`.
    """
    expected = shapes_of(init)

    def of_parts(function, parts):
        return None if function is None else functools.partial(function, parts)

    def build(parts):
        mixer = framed(
            name,
            init=init,
            apply=functools.partial(apply, parts),
            init_state=of_parts(init_state, parts),
            step=of_parts(step, parts),
            prefill=of_parts(prefill, parts),
            expected=expected,
            **options,
        )
        return mixer._replace(parts=parts, rebuild=build)

    return build(parts)


def _one_token_of(prefill: Callable[..., tuple[Array, Any]]) -> Callable[..., tuple[Array, Any]]:
    def step(params, x, state):
        y, state = prefill(params, x[:, None], state, 1)
        return y[:, 0], state

    return step


def _as_it_came(state: Any, y: Array, after: Any) -> tuple[Array, Any]:
    """A state of the dtypes that it had, or the carry of a loop would change its type."""
    return y, jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)
