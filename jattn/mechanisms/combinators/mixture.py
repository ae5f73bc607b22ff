"""Mixers mixed: token by token, as the geometries of CAT (arXiv 2510.01634), or by a constant."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count, check_number
from jattn.mechanisms.frames.checks import check_parameters, shapes_of
from jattn.mechanisms.frames.tokens import clean_tokens
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.mixer import Auxiliary, Mixer, Params, prefill


def router_init(
    key: jax.Array, dim: int, branches: int, hidden: int
) -> dict[str, Float[Array, "..."]]:
    """Parameters `router_up` `[m, r]` and `router_down` `[r, n]` of `router_shares`.

    The second is zero, so that shares are equal at first.
    """
    return {
        "router_up": linear_init(key, dim, hidden),
        "router_down": jnp.zeros((hidden, branches)),
    }


def router_shares(params: Mapping[str, Any], x: Float[Array, "b t m"]) -> Float[Array, "b t n"]:
    """Shares of each branch for each token: softmax(gelu(x up) down), float32 (float64).

    Args:
        params: `router_up` `[m, r]`, `router_down` `[r, n]`; zeros in the second,
            as at the start, give 1 / n.
        x: tokens.

    Returns:
        `[b, t, n]`, which sum to 1.

    Example:
        >>> params = router_init(jax.random.key(0), dim=8, branches=2, hidden=4)
        >>> router_shares(params, jnp.ones((1, 1, 8))).tolist()
        [[[0.5, 0.5]]]
    """
    logits = linear(jax.nn.gelu(linear(x, params["router_up"])), params["router_down"])
    return jax.nn.softmax(logits.astype(jnp.promote_types(x.dtype, jnp.float32)), axis=-1)


def mixture(mixers: Mapping[str, Mixer], *, dim: int, hidden: int | None = None) -> Mixer:
    """The mixer y_i = sum_c share_c(x_i) mixer_c(x)_i.

    Its parameters are those of each mixer under its name, `router_up` and `router_down`.

    Args:
        mixers: any, of the same model dimension, by name.
        dim: that dimension m.
        hidden: inner size r of the router; default m / 4, one at least.

    Returns:
        A `Mixer`, which streams if all of them do.

    Raises:
        ValueError: no mixer, or a name that the router has.

    Reference:
        arXiv 2510.01634.

    Example:
        >>> import jattn
        >>> names = ("softmax_attention", "retention")
        >>> parts = {n: jattn.zoo.make(n, dim=16, heads=2, causal=True) for n in names}
        >>> mixer = mixture(parts, dim=16)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 16))).shape
        (1, 5, 16)
    """
    if not mixers:
        raise ValueError("mixers: expected one at least, got none")
    for name in mixers:
        if name in ("router_up", "router_down"):
            raise ValueError(f"mixers: {name!r} is the router's; expected another name")
    check_count("dim", dim)
    hidden = max(dim // 4, 1) if hidden is None else hidden
    check_count("hidden", hidden)
    return _weighted(mixers, lambda key: router_init(key, dim, len(mixers), hidden), router_shares)


def mix(short: Mixer, long: Mixer, *, alpha: float | Float[Array, ""] = 0.5) -> Mixer:
    """The mixer y = alpha short(x) + (1 - alpha) long(x).

    Its parameters are those of each under `short` and `long`. Under a read-out that is linear, of
    both the same, the logits are mixed so.

    Args:
        short, long: any two, of the same model dimension.
        alpha: the share of the first.

    Returns:
        A `Mixer`, which streams if both do.

    Reference:
        arXiv 2311.01056.

    Example:
        >>> from jattn.mechanisms.softmax.window_query_attention import make
        >>> short, long = (make(dim=16, heads=2, query_window=n) for n in (1, 3))
        >>> mixer = mix(short, long)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 16))).shape
        (1, 5, 16)
    """
    check_number("alpha", alpha)
    shares = lambda params, x: jnp.array([alpha, 1 - alpha])
    return _weighted({"short": short, "long": long}, lambda key: {}, shares)


def _weighted(
    mixers: Mapping[str, Mixer],
    own: Callable[[jax.Array], Params],
    shares_of: Callable[[Params, Array], Array],
) -> Mixer:
    """The mixer y_i = sum_c shares_of(params, x)_ic mixer_c(x)_i, with parameters `own` besides."""

    def init(key):
        of_own, *keys = jax.random.split(key, len(mixers) + 1)
        inner = {name: m.init(k) for (name, m), k in zip(mixers.items(), keys, strict=True)}
        return inner | own(of_own)

    def mixed(params, x, outputs):
        shares = shares_of(params, x)
        total = sum(shares[..., i, None] * y for i, y in enumerate(outputs))
        return jnp.asarray(total).astype(x.dtype)

    shapes = shapes_of(init)

    def apply(params, x, /, **keywords):
        check_parameters("a mixture", params, shapes())
        x, _ = clean_tokens(x, **keywords)
        return mixed(params, x, [m.apply(params[n], x, **keywords) for n, m in mixers.items()])

    statistics = tuple(f"{n}/{inner}" for n, m in mixers.items() for inner in m.statistics)

    def auxiliary(params, x, /, **keywords):
        found = Auxiliary({}, {})
        for name, mixer in mixers.items():
            if mixer.auxiliary is not None:
                inner = mixer.auxiliary(params[name], x, **keywords)
                for every, own in zip(found, inner, strict=True):
                    every.update({f"{name}/{of}": value for of, value in own.items()})
        return found

    if any(m.step is None or m.init_state is None for m in mixers.values()):
        return Mixer(init, apply, auxiliary=auxiliary, statistics=statistics)

    def init_state(params, batch_size, max_length, **keywords):
        return {
            name: mixer.init_state(params[name], batch_size, max_length, **keywords)
            for name, mixer in mixers.items()
            if mixer.init_state is not None
        }

    def step(params, x, state):
        found = {
            name: mixer.step(params[name], x, state[name])
            for name, mixer in mixers.items()
            if mixer.step is not None
        }
        y = mixed(params, x[:, None], [y[:, None] for y, _ in found.values()])[:, 0]
        return y, {name: state for name, (_, state) in found.items()}

    def whole(params, x, state, length):
        found = {n: prefill(m, params[n], x, state[n], length) for n, m in mixers.items()}
        y = mixed(params, x, [y for y, _ in found.values()])
        return y, {name: state for name, (_, state) in found.items()}

    return Mixer(init, apply, init_state, step, whole, auxiliary, statistics)
