"""The frame of combinators that change what heads give before it is projected back."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from jattn.mechanisms.frames.checks import check_parameters, shapes_of
from jattn.mechanisms.layers.heads import merge_heads, split_heads
from jattn.mechanisms.mixer import Mixer, Params, edit_parts


def on_heads(
    mixer: Mixer,
    *,
    heads: int,
    init: Callable[[jax.Array, Params], Params],
    change: Callable[[Params, Array, Array], Array],
) -> Mixer:
    """The mixer `y = output(change(params, heads of mixer(x), x))`.

    It streams where the mixer does: what it adds looks at one token at a time.

    Args:
        mixer: one with parts, as those of the zoo have them.
        heads: number of its heads.
        init: `(key, the mixer's parameters) -> ` the parameters it adds.
        change: `(params, out [b, t, h, e], x [b, t, m]) -> [b, t, h, e]`.

    Raises:
        ValueError: a mixer without parts; when parameters are made, if both have some of the same
            name.
    """

    def init_all(key):
        inner, own = jax.random.split(key)
        params = mixer.init(inner)
        return disjoint(params, init(own, params))

    shapes, inner_shapes = shapes_of(init_all), shapes_of(mixer.init)

    def edit(parts):
        def output(params, mixed, x):
            added = {name: s for name, s in shapes().items() if name not in inner_shapes()}
            check_parameters("the mixer and what is added to it", params, added)
            out = change(params, split_heads(mixed, heads), x)
            return parts.output(params, merge_heads(out), x)

        return parts._replace(output=output)

    def rebuild(parts):
        inner = edit_parts(mixer, lambda _: parts)
        return on_heads(inner, heads=heads, init=init, change=change)

    # The parts stay those of the mixer, so that a later change of heads comes behind this one.
    combined = edit_parts(mixer, edit)
    return combined._replace(init=init_all, parts=mixer.parts, rebuild=rebuild)


def state_of(mixer: Mixer, inside: Callable[[Params], Params]) -> Callable[..., Any] | None:
    """The empty state of a mixer, made from a combinator's parameters.

    Args:
        mixer: the one that is combined.
        inside: from the combinator's parameters to the mixer's.
    """
    make_state = mixer.init_state
    if make_state is None:
        return None

    def init_state(params, batch_size, max_length, **keywords):
        return make_state(inside(params), batch_size, max_length, **keywords)

    return init_state


def disjoint(params: Any, more: Any) -> Params:
    """The parameters of both.

    Raises:
        ValueError: both have some of the same name.
    """
    for name in more:
        if name in params:
            raise ValueError(f"mixer: expected one without a parameter {name!r}, got one with it")
    return params | more
