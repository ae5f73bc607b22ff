"""The frame of causal mixers over `jattn.recur`, which differ in how x becomes its inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.gates import output_gate
from jattn.mechanisms.layers.heads import merge_heads, project_output, project_qkv
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.mixer import Mixer, Params, Parts, first_tokens


class RecurrentState(NamedTuple):
    """State of a recurrent mixer; its size does not grow with the tokens seen.

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
    inputs: Callable[[Params, dict[str, Array], Array, Array], dict[str, Array]],
    core: Callable[..., Any],
    dim: int,
    memory: tuple[int, int, int],
) -> Mixer:
    """A causal mixer `y = output(core(**inputs(params, maps, x, positions)))`.

    Between core and output each head is divided by its root mean square, and multiplied by
    `2 sigmoid(x W_gate)` where there is a parameter `gate`.

    Args:
        name: the mechanism's name, for messages.
        init: as in `Mixer`.
        inputs: `(params, maps, x, positions)` to the arrays of `core`: `query`, `key`, `value`, and
            `decay` or `beta` if it has them. Maps are those of `project_qkv`.
        core: a function of those, of `decay` in any case, and of `initial_state` and
            `return_state` as in `recur`.
        dim: model dimension m.
        memory: heads h, and the dimensions d and e of the state of each.

    Returns:
        A `Mixer` with a streaming form.
    """

    def arrays_of(parts, params, x, positions, *where):
        maps = parts.project(params, x, x)
        return skip_padding(inputs(params, maps, x, positions), *where)

    def apply(parts, params, given):
        x, positions = given.x, given.positions
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        arrays = arrays_of(parts, params, x, positions, given.real, given.starts)
        return parts.output(params, gated_heads(params, x, parts.core(**arrays)), x)

    def init_state(parts, params, batch_size, max_length, dtype):
        wide = jnp.promote_types(dtype, jnp.float32)
        return RecurrentState(jnp.zeros((batch_size, *memory), wide), jnp.zeros((), jnp.int32))

    def prefill(parts, params, x, state, length):
        positions = jnp.broadcast_to(state.position + jnp.arange(x.shape[1]), x.shape[:2])
        arrays = arrays_of(parts, params, x, positions, first_tokens(length, x))
        out, after = parts.core(**arrays, initial_state=state.memory, return_state=True)
        y = parts.output(params, gated_heads(params, x, out), x)
        return y, RecurrentState(after, state.position + length)

    return framed_parts(
        name, Parts(project_qkv, core, project_output), dim=dim, init=init, apply=apply,
        init_state=init_state, prefill=prefill, takes="documents", causal=True,
    )  # fmt: skip


def skip_padding(
    arrays: dict[str, Array],
    real: Bool[Array, "#b t"] | None,
    starts: Bool[Array, "b t"] | None = None,
) -> dict[str, Array]:
    """The arrays of a recurrence that knows of padding and documents.

    A token that is not there writes nothing and forgets nothing; where a document begins, all that
    was before is forgotten.

    Args:
        arrays: `query`, `key` and `value`, `decay` (a log, `[b, t, h]` or `[b, t, h, d]`), `beta`,
            or `rate`, that of taking out what stands at another key, where there are such.
        real: which tokens are real; None: all are.
        starts: where documents begin; None: there is one.
    """
    arrays = dict(arrays)
    along = lambda where, array: jnp.expand_dims(where, tuple(range(2, array.ndim)))
    if real is not None:
        for erased in {"key", "decay", "rate"} & set(arrays):
            arrays[erased] = jnp.where(along(real, arrays[erased]), arrays[erased], 0)
    if starts is not None:
        decay = arrays.get("decay", jnp.zeros(arrays["query"].shape[:3], jnp.float32))
        arrays["decay"] = jnp.where(along(starts, decay), -jnp.inf, decay)
    return arrays


def resets(starts: Bool[Array, "b t"] | None, heads: int) -> Float[Array, "b t h"] | None:
    """The log decay that forgets all where a document begins, and nothing elsewhere.

    Args:
        starts: True where one begins; None: there is one document, and nothing is forgotten.
        heads: h.
    """
    if starts is None:
        return None
    decay = jnp.where(starts, -jnp.inf, 0.0)
    return jnp.broadcast_to(decay[..., None], (*starts.shape, heads))


def gated_heads(
    params: Any, x: Float[Array, "b t m"], out: Float[Array, "b t h e"]
) -> Float[Array, "b t he"]:
    """Each head over its root mean square, times `output_gate` if there is one, merged.

    Reads of a recurrence have no bounded scale, as averages by softmax have: hence the norm.
    """
    out = merge_heads(rms_norm(out))
    if "gate" in params:
        out = out * output_gate(x, params["gate"])
    return out
