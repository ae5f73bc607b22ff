"""The frame of mixers of linear cost that have a causal form and one that is not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mixer import Mixer, Params, Parts, first_tokens


class LinearContext(NamedTuple):
    """Context of a core: what it may know besides its queries, keys and values.

    Attributes:
        real: which keys are real, `[b, s]`; None: all are.
        starts: where a document begins, `[b, s]`; None: there is one.
        crossed: whether the keys are those of a context.
    """

    real: Bool[Array, "b s"] | None
    starts: Bool[Array, "b s"] | None = None
    crossed: bool = False


def linear_mixer(
    name: str,
    *,
    dim: int,
    heads: int,
    causal: bool,
    core: Callable[..., Any],
    empty_state: Callable[[int, Any], Any],
    init: Callable[[jax.Array], Params] | None = None,
    project: Callable[[Params, Array, Array], dict[str, Array]] = project_qkv,
    documents: bool = True,
) -> Mixer:
    """A mixer `y = output(core(params, query, key, value, context))`.

    Args:
        name: the mechanism's name, for messages.
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: token t sees tokens <= t; the mixer then streams, and there is no `context`.
        core: from `[b, t, h, d]`, `[b, s, h, d]`, `[b, s, h, e]` and a `LinearContext` to
            `[b, t, h, e]`, or `[b, 1, h, e]` where all tokens get the same. With
            `initial_state` and `return_state`, which causal ones are given, the pair of it and the
            next state.
        empty_state: `(batch_size, dtype)` to the state before the first token, of a dtype of sums.
        init: all parameters; default the query, key, value and output projections.
        project: as in `Parts`.
        documents: whether the causal form honours packed documents.

    Raises:
        ValueError: a size that does not fit.
    """
    check_heads(dim, heads)

    def apply(parts, params, given):
        arrays = split_qkv(parts.project(params, given.x, given.source), heads, heads)
        context = LinearContext(given.real, given.starts, given.crossed)
        out = parts.core(params, *arrays, context)
        y = parts.output(params, merge_heads(out), given.x)
        return jnp.broadcast_to(y, given.x.shape)

    def init_state(parts, params, batch_size, max_length, dtype):
        return empty_state(batch_size, jnp.promote_types(dtype, jnp.float32))

    def prefill(parts, params, x, state, length):
        arrays = split_qkv(parts.project(params, x, x), heads, heads)
        context = LinearContext(first_tokens(length, x))
        carry = dict(initial_state=state, return_state=True)
        out, state = parts.core(params, *arrays, context, **carry)
        return parts.output(params, merge_heads(out), x), state

    return framed_parts(
        f"causal {name}" if causal else name,
        Parts(project, core, project_output),
        dim=dim,
        init=(lambda key: qkvo_init(key, dim, heads)) if init is None else init,
        apply=apply,
        init_state=init_state if causal else None,
        prefill=prefill if causal else None,
        takes="documents" if causal and documents else "padding",
        causal=causal,
        cross=not causal,
    )
