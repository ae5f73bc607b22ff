"""The frame of combinators that change what heads give before it is projected back."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from jattn.mechanisms.mixer import Mixer, Params
from jattn.mechanisms.projections import merge_heads, project_out, split_heads


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
        mixer: one that ends in the projection `output`, as those of the zoo do.
        heads: number of its heads.
        init: `(key, the mixer's parameters) -> ` the parameters it adds.
        change: `(params, out [b, t, h, e], x [b, t, m]) -> [b, t, h, e]`.

    Raises:
        ValueError: when parameters are made, if both have some of the same name.
    """

    def init_all(key):
        inner, own = jax.random.split(key)
        params = mixer.init(inner)
        return disjoint(params, init(own, params))

    def inside(params):
        return {name: array for name, array in params.items() if name != "output"}

    def finish(params, merged, x):
        out = change(params, split_heads(merged, heads), x)
        return project_out(params, merge_heads(out))

    def apply(params, x, /, **keywords):
        return finish(params, mixer.apply(inside(params), x, **keywords), x)

    if mixer.step is None:
        return Mixer(init_all, apply)
    mixer_step = mixer.step

    def step(params, x, state):
        merged, state = mixer_step(inside(params), x, state)
        return finish(params, merged[:, None], x[:, None])[:, 0], state

    return Mixer(init_all, apply, mixer.init_state, step)


def disjoint(params: Any, more: Any) -> Params:
    """The parameters of both.

    Raises:
        ValueError: both have some of the same name.
    """
    for name in more:
        if name in params:
            raise ValueError(f"mixer: expected one without a parameter {name!r}, got one with it")
    return params | more
