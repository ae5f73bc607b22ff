"""The frame of causal mixers over `jattn.recur`, which differ in how x becomes its inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.mechanisms.mixer import Mixer, Params
from jattn.mechanisms.projections import (
    check_tokens,
    linear,
    merge_heads,
    no_context,
    padding,
    project_out,
    rms_norm,
)


class RecurrentState(NamedTuple):
    """What a recurrent mixer remembers; its size does not grow with the tokens seen.

    Attributes:
        memory: the state of the recurrence, `[b, h, d, e]`.
        position: how many tokens it has seen.
    """

    memory: Float[Array, "b h d e"]
    position: Int[Array, ""]


def recurrent_mixer(
    name: str,
    *,
    init: Callable[[jax.Array], Params],
    inputs: Callable[[Any, Float[Array, "b t m"], Int[Array, "b t"]], dict[str, Array]],
    core: Callable[..., Any],
    dim: int,
    memory: tuple[int, int, int],
) -> Mixer:
    """A causal mixer `y = output(core(**inputs(params, x, positions)))`.

    Args:
        name: the mechanism's name, for messages.
        init: as in `Mixer`.
        inputs: `(params, x, positions)` to the arrays of `core`: `query`, `key`, `value`, and
            `decay` or `beta` if it has them.
        core: a function of those, and of `initial_state` and `return_state` as in `recur`.
        dim: model dimension m.
        memory: heads h, and the dimensions d and e of the state of each.

    Returns:
        A `Mixer` with a streaming form.
    """

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        no_context(name, context)
        check_tokens(dim, x, positions=positions)
        batch, length, _ = x.shape
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
        arrays = inputs(params, x, positions)
        real = padding(mask, batch, length)
        if real is not None:  # A token that is not there writes nothing and forgets nothing.
            for erased in {"key", "decay"} & set(arrays):
                axes = tuple(range(2, arrays[erased].ndim))
                arrays[erased] = jnp.where(jnp.expand_dims(real, axes), arrays[erased], 0)
        return head_output(params, x, core(**arrays))

    def init_state(params, batch_size, max_length):
        return RecurrentState(jnp.zeros((batch_size, *memory)), jnp.zeros((), jnp.int32))

    def step(params, x, state):
        x = x[:, None]
        positions = jnp.broadcast_to(state.position, x.shape[:2])
        out, after = core(
            **inputs(params, x, positions), initial_state=state.memory, return_state=True
        )
        return head_output(params, x, out)[:, 0], RecurrentState(after, state.position + 1)

    return Mixer(init, apply, init_state, step)


def head_output(
    params: Any, x: Float[Array, "b t m"], out: Float[Array, "b t h e"]
) -> Float[Array, "b t m"]:
    """Each head over its root mean square, times `silu(x W_gate)` if there is a gate, projected.

    Reads of a recurrence have no bounded scale, as averages by softmax have: hence the norm.
    """
    out = merge_heads(rms_norm(out))
    if "gate" in params:
        out = out * jax.nn.silu(linear(x, params["gate"]))
    return project_out(params, out)


def unit_norm(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """`x / |x|` over the last axis, safe at 0."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * jax.lax.rsqrt((wide**2).sum(-1, keepdims=True) + 1e-6)).astype(x.dtype)
