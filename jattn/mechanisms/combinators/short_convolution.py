"""Short convolutions on queries, keys and values: a token is told what stands just before it.

Paper: Gated Delta Networks, arXiv 2412.06464; in linear attention since H3, arXiv 2212.14052.

    q_t = sum_{w < W} c_w * (W_q x_{t-w}),     k and v likewise, each with filters c of its own

Distinctive: recurrences with small states cannot both look back one token and remember; with four
taps a single layer pairs a key with the value behind it, as softmax needs two layers for.

Limits: filters that are 1 at the current token and 0 before it leave the mixer as it was.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.mechanisms.mixer import Mixer
from jattn.mechanisms.projections import Convolved

PROJECTIONS = ("query", "key", "value")


class ConvolvedState(NamedTuple):
    """What a mixer with short convolutions remembers.

    Attributes:
        past: the tokens that the filters still reach, `[b, width - 1, m]`, the newest last.
        mixer: the mixer's own state.
    """

    past: Float[Array, "b before m"]
    mixer: Any


def short_convolution(mixer: Mixer, *, width: int = 4) -> Mixer:
    """A mixer whose queries, keys and values are convolved along the tokens, channel by channel.

    Filters begin as U(-W^-1/2, W^-1/2). Padding has to come after the real tokens.

    Args:
        mixer: a causal one of the zoo, with a parameter `query`, `key` or `value`, which it uses
            in `jattn.mechanisms.projections.linear` on tokens.
        width: tokens W that a filter sees, the current one among them.

    Returns:
        A `Mixer`, which streams if the mixer does; those of its parameters are `Convolved`. Of a
        mixer that projects something else than its tokens (`step_attention`,
        `window_query_attention`) only `apply` is meaningful.

    Raises:
        ValueError: a width below 1; when parameters are made, a mixer without such projections.

    Reference:
        arXiv 2412.06464.

    Example:
        >>> from jattn.mechanisms import zoo
        >>> mixer = short_convolution(zoo.make("delta_rule", dim=8, heads=2, causal=True))
        >>> params = mixer.init(jax.random.key(0))
        >>> params["query"].taps.shape, jax.jit(mixer.apply)(params, jnp.ones((1, 5, 8))).shape
        ((4, 8), (1, 5, 8))
    """
    if width < 1:
        raise ValueError(f"width: expected at least 1, got {width}")

    def init(key):
        inner, own = jax.random.split(key)
        params = dict(mixer.init(inner))
        chosen = [name for name in PROJECTIONS if name in params]
        if not chosen:
            raise ValueError(f"mixer: expected one with a parameter of {', '.join(PROJECTIONS)}")
        dim = params[chosen[0]].shape[0]
        for name, filters in zip(chosen, jax.random.split(own, len(chosen)), strict=True):
            shape, bound = (width, params[name].shape[-1]), width**-0.5
            taps = jax.random.uniform(filters, shape, minval=-bound, maxval=bound)
            params[name] = Convolved(params[name], taps)
        try:
            jax.eval_shape(mixer.apply, params, jax.ShapeDtypeStruct((1, 2, dim), jnp.float32))
        except (AttributeError, TypeError):
            raise ValueError(
                "mixer: expected one that uses its projections as matrices on tokens only"
            ) from None
        return params

    if mixer.step is None or mixer.init_state is None:
        return Mixer(init, mixer.apply)
    make_state, mixer_step = mixer.init_state, mixer.step

    def init_state(params, batch_size, max_length):
        weights = next(params[name] for name in PROJECTIONS if name in params)
        past = jnp.zeros((batch_size, width - 1, weights.weight.shape[0]), weights.dtype)
        return ConvolvedState(past, make_state(params, batch_size, max_length))

    def step(params, x, state):
        with_past = {
            name: value._replace(past=state.past) if isinstance(value, Convolved) else value
            for name, value in params.items()
        }
        y, after = mixer_step(with_past, x, state.mixer)
        past = jnp.concatenate([state.past, x[:, None].astype(state.past.dtype)], axis=1)
        return y, ConvolvedState(past[:, 1:], after)

    return Mixer(init, mixer.apply, init_state, step)
