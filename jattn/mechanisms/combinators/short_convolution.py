"""Short convolutions on queries, keys and values: a token is told what stands just before it.

Paper: Gated Delta Networks, arXiv 2412.06464; in linear attention since H3, arXiv 2212.14052.

    q_t = sum_{w < W} c_w * (W_q x_{t-w}),     k and v likewise, each with filters c of its own

Distinctive: recurrences with small states cannot both look back one token and remember; with four
taps a single layer pairs a key with the value behind it, as softmax needs two layers for.

Limits: filters that are 1 at the current token and 0 before it leave the mixer as it was.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention import masks
from jattn.attention.mask_parts import layout
from jattn.checks import check_count
from jattn.mechanisms.frames.checks import check_tokens
from jattn.mechanisms.frames.tokens import PADDING, in_order, sequence_mask
from jattn.mechanisms.layers.convolutions import causal_depthwise
from jattn.mechanisms.mixer import Mixer, edit_parts, last_tokens, parts_of

PROJECTIONS = ("query", "key", "value")


class Convolved(NamedTuple):
    """Parameters of a linear map and, on what it gives, of a causal convolution of each channel.

    Attributes:
        weight: `[inputs, outputs]`.
        taps: one filter a channel, the last tap for the current token, `[width, outputs]`.
    """

    weight: Float[Array, "inputs outputs"]
    taps: Float[Array, "width outputs"]


class ConvolvedState(NamedTuple):
    """State of a mixer with short convolutions.

    Attributes:
        past: the linear maps of the tokens that the filters still reach, by their names,
            `[b, width - 1, outputs]`, the newest last.
        mixer: the mixer's own state.
    """

    past: dict[str, Float[Array, "b before outputs"]]
    mixer: Any


def short_convolution(mixer: Mixer, *, width: int = 4) -> Mixer:
    """A mixer whose queries, keys and values are convolved along the tokens, channel by channel.

    Filters begin as U(-W^-1/2, W^-1/2). They see real tokens of their own document only, wherever
    padding is; masks other than padding, documents and causality they cannot honour, and refuse.

    Args:
        mixer: a causal one with parts, whose `project` gives `query`, `key` or `value`.
        width: tokens W that a filter sees, the current one among them.

    Returns:
        A `Mixer`, which streams if the mixer does; those of its parameters are `Convolved`.

    Raises:
        ValueError: a width below 1, or a mixer without parts; when parameters are made, a mixer
            without such projections.

    Reference:
        arXiv 2412.06464.

    Example:
        >>> from jattn.mechanisms import zoo
        >>> mixer = short_convolution(zoo.make("delta_rule", dim=8, heads=2, causal=True))
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["query"].taps.shape
        (4, 8)
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_count("width", width)
    before = width - 1
    own_parts = parts_of(mixer)

    def filtered(params, *, past=None, documents=None, maps=None):
        """Puts filters around the mixer; `maps`, if given, receives what they are applied to."""
        taps = _taps(params)

        def behind_filter(name, y):
            own = name.partition("/")[0]  # the weights, whatever tokens they are applied to
            if own not in taps:
                return y
            before_it = None if past is None else past[own]
            return causal_depthwise(y, taps[own], past=before_it, documents=documents)

        def edit(parts):
            def project(weights, x, source):
                found = parts.project(weights, x, source)
                if maps is not None:
                    maps.update(found)
                return {name: behind_filter(name, y) for name, y in found.items()}

            return parts._replace(project=project)

        return edit_parts(mixer, edit)

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        check_tokens(None, x, context, positions)
        source = x if context is None else context
        (b, s), t = source.shape[:2], x.shape[1]
        mask = sequence_mask(mask, b, t, s)
        weights = _weights(params)
        if mask is None or not source.size:
            return filtered(params).apply(
                weights, x, context=context, mask=mask, positions=positions, key=key
            )
        found = layout(mask, s)
        if found.rest or (context is not None and found.documents is not None):
            raise ValueError(
                f"mask: short_convolution expected {PADDING} and documents of one sequence, "
                "jattn.masks.segments(ids); got another kind: its filters would look past it"
            )
        real = None if found.real is None else jnp.broadcast_to(found.real, (b, s))
        documents = None if found.documents is None else jnp.broadcast_to(found.documents, (b, s))
        order = in_order(real, documents, b, s)

        def move(array):
            return jnp.take_along_axis(array, jnp.expand_dims(order, range(2, array.ndim)), 1)

        # What the mixer is told of its tokens, now that they are in order.
        told = [masks.causal()] if found.causal else []
        if real is not None:
            source = jnp.where(real[..., None], source, 0)
            told.append(masks.prefix(real.sum(1)))
        if documents is not None:
            documents = move(documents)
            told.append(masks.segments(documents))
            if positions is None:
                positions = jnp.broadcast_to(jnp.arange(s), (b, s))
        run = filtered(params, documents=documents).apply
        mask = functools.reduce(operator.and_, told)
        if context is not None:
            source = move(source)
            return run(weights, x, context=source, mask=mask, positions=positions, key=key)
        positions = None if positions is None else move(positions)
        y = run(weights, move(source), mask=mask, positions=positions, key=key)
        return jnp.take_along_axis(y, jnp.argsort(order, axis=1)[..., None], axis=1)

    def init(key):
        inner, own = jax.random.split(key)
        params = dict(mixer.init(inner))
        chosen = [name for name in PROJECTIONS if name in params]
        if not chosen:
            raise ValueError(f"mixer: expected one with a parameter of {', '.join(PROJECTIONS)}")
        x = jax.ShapeDtypeStruct((1, 1, params[chosen[0]].shape[0]), jnp.float32)
        if not set(chosen) <= set(jax.eval_shape(own_parts.project, params, x, x)):
            raise ValueError(
                "mixer: expected one that uses its projections as matrices on tokens only"
            )
        for name, filters in zip(chosen, jax.random.split(own, len(chosen)), strict=True):
            shape, bound = (width, params[name].shape[-1]), width**-0.5
            taps = jax.random.uniform(filters, shape, minval=-bound, maxval=bound)
            params[name] = Convolved(params[name], taps)
        return params

    def rebuild(parts):
        return short_convolution(edit_parts(mixer, lambda _: parts), width=width)

    convolved = mixer._replace(init=init, apply=apply, rebuild=rebuild)
    if mixer.step is None or mixer.init_state is None:
        return convolved
    make_state = mixer.init_state

    def init_state(params, batch_size, max_length, *, dtype=None):
        options = {} if dtype is None else dict(dtype=dtype)
        past = {
            name: jnp.zeros((batch_size, before, taps.shape[1]), dtype or taps.dtype)
            for name, taps in _taps(params).items()
        }
        return ConvolvedState(past, make_state(_weights(params), batch_size, max_length, **options))

    def step(params, x, state):
        maps = {}
        one_step = filtered(params, past=state.past, maps=maps).step
        assert one_step is not None
        y, after = one_step(_weights(params), x, state.mixer)
        return y, ConvolvedState(_newest(state.past, maps, 1), after)

    if mixer.prefill is None:  # Its steps in a loop would not know the tokens before.
        return convolved._replace(init_state=init_state, step=step)

    def prefill(params, x, state, length):
        maps = {}
        whole = filtered(params, past=state.past, maps=maps).prefill
        assert whole is not None
        y, after = whole(_weights(params), x, state.mixer, length)
        return y, ConvolvedState(_newest(state.past, maps, length), after)

    return convolved._replace(init_state=init_state, step=step, prefill=prefill)


def _weights(params: Any) -> Any:
    """Parameters as the mixer without filters has them."""
    return {n: v.weight if isinstance(v, Convolved) else v for n, v in params.items()}


def _taps(params: Any) -> dict[str, Float[Array, "width outputs"]]:
    return {n: v.taps for n, v in params.items() if isinstance(v, Convolved)}


def _newest(past: dict[str, Array], maps: dict[str, Array], length: Any) -> dict[str, Array]:
    return {name: last_tokens(past[name], maps[name], length) for name in past}
