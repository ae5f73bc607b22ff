"""Mixers mixed: token by token, as the geometries of CAT (arXiv 2510.01634), or by a constant."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.mechanisms.mixer import Mixer, Params
from jattn.mechanisms.projections import linear, linear_init

# Near enough to zero for a start with equal shares, and not zero, which would hide the hidden layer
# from its first gradient.
SMALL = 1e-2


def router_init(
    key: jax.Array, dim: int, branches: int, hidden: int
) -> dict[str, Float[Array, "..."]]:
    """Parameters `router_up` `[m, r]` and `router_down` `[r, n]` of `router_shares`."""
    up, down = jax.random.split(key)
    return {
        "router_up": linear_init(up, dim, hidden),
        "router_down": SMALL * linear_init(down, hidden, branches),
    }


def router_shares(params: Mapping[str, Any], x: Float[Array, "b t m"]) -> Float[Array, "b t n"]:
    """What each token takes of each branch: softmax(gelu(x up) down), float32 (float64).

    Args:
        params: `router_up` `[m, r]`, `router_down` `[r, n]`; a `router_down` of zeros gives 1 / n.
        x: tokens.

    Returns:
        `[b, t, n]`, which sum to 1.

    Example:
        >>> params = router_init(jax.random.key(0), dim=8, branches=2, hidden=4)
        >>> params["router_down"] = jnp.zeros((4, 2))
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
        >>> jax.jit(mixer.apply)(mixer.init(jax.random.key(0)), jnp.ones((1, 5, 16))).shape
        (1, 5, 16)
    """
    if not mixers:
        raise ValueError("mixers: expected one at least, got none")
    for name in mixers:
        if name in ("router_up", "router_down"):
            raise ValueError(f"mixers: {name!r} is the router's; expected another name")
    hidden = max(dim // 4, 1) if hidden is None else hidden
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
        >>> jax.jit(mixer.apply)(mixer.init(jax.random.key(0)), jnp.ones((1, 5, 16))).shape
        (1, 5, 16)
    """
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

    def apply(params, x, /, **keywords):
        return mixed(params, x, [m.apply(params[n], x, **keywords) for n, m in mixers.items()])

    if any(m.step is None or m.init_state is None for m in mixers.values()):
        return Mixer(init, apply)

    def init_state(params, batch_size, max_length):
        return {
            name: mixer.init_state(params[name], batch_size, max_length)
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

    return Mixer(init, apply, init_state, step)
