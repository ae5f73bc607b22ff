"""NiNformer (Abdullah and Ali 2024, arXiv 2403.02411): a token mixer as a gate.

    M(x): x <- x + T(LN_1(x)),  x <- x + C(LN_2(x)),   y = (x W + b) * M(x)

T is an MLP over tokens, C one over channels. A network in the network decides, token by token and
channel by channel, what passes.

Distinctive: a gate that has seen all tokens, in the place of a map of attention; T's weights are
tied to places, so there is a largest length, and shorter inputs are as if filled with zeros.

Limits: T and C of zero leave `(x W + b) * x`; W = 0 and b = 1 is an MLP-Mixer (arXiv 2105.01601).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.framed import framed
from jattn.mechanisms.layers.affine import affine, affine_init, mlp, mlp_init, norm, norm_init
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer


def mlp_mixer(
    params: dict[str, Any],
    x: Float[Array, "b t m"],
    real: Bool[Array, "b t"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "b t m"]:
    """An MLP over tokens, then one over channels, each with a norm before it and a residual.

    Args:
        params: `token_norm`, `tokens`, `channel_norm` and `channels`.
        x: as many tokens as `tokens` has weights for, or fewer.
        real: False where x is padding, which stands behind; default none is.
        eps: of the norms.

    Raises:
        ValueError: more tokens than weights.

    Reference:
        arXiv 2105.01601.

    Example:
        >>> params = ninformer_init(jax.random.key(0), 4, length=6, hidden=8)["mixer"]
        >>> mlp_mixer(params, jnp.ones((1, 5, 4))).shape
        (1, 5, 4)
    """
    inner, outer = params["tokens"]["inner"], params["tokens"]["outer"]
    length, known = x.shape[1], len(inner["weight"])
    if length > known:
        raise ValueError(f"x: expected at most max_length={known} tokens, got {length}")
    seen = norm(params["token_norm"], x, eps=eps)
    seen = seen if real is None else jnp.where(real[..., None], seen, 0)
    first = {"inner": inner | {"weight": inner["weight"][:length]}}
    first["outer"] = {"weight": outer["weight"][:, :length], "bias": outer["bias"][:length]}
    x = x + mlp(first, seen.swapaxes(1, 2)).swapaxes(1, 2)
    return x + mlp(params["channels"], norm(params["channel_norm"], x, eps=eps))


def ninformer(
    params: dict[str, Any],
    x: Float[Array, "b t m"],
    real: Bool[Array, "b t"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "b t m"]:
    """The gating unit, `(x W + b) * M(x)`.

    Args:
        params: `value`, W and b, and `mixer`, those of `mlp_mixer`.
        x: tokens.
        real: False where x is padding, which stands behind; default none is.
        eps: of the norms.

    Reference:
        arXiv 2403.02411.

    Example:
        >>> params = ninformer_init(jax.random.key(0), 4, length=6, hidden=8)
        >>> ninformer(params, jnp.ones((1, 6, 4))).shape
        (1, 6, 4)
    """
    return affine(params["value"], x) * mlp_mixer(params["mixer"], x, real, eps=eps)


def ninformer_block(
    params: dict[str, Any], x: Float[Array, "b t m"], *, eps: float = 1e-5
) -> Float[Array, "b t m"]:
    """`x <- x + unit(LN(x)), x <- x + FFN(LN'(x))`, a layer of the authors' network.

    Args:
        params: `unit`, `norm` and `mlp`; `mlp_norm`, or the authors' one norm for both places.
        x: tokens.
        eps: of the norms.

    Example:
        >>> keys = jax.random.split(jax.random.key(0))
        >>> params = {"unit": ninformer_init(keys[0], 4, length=6, hidden=8)}
        >>> params |= {"norm": norm_init(4), "mlp": mlp_init(keys[1], 4, 8)}
        >>> ninformer_block(params, jnp.ones((1, 6, 4))).shape
        (1, 6, 4)
    """
    x = x + ninformer(params["unit"], norm(params["norm"], x, eps=eps), eps=eps)
    return x + mlp(params["mlp"], norm(params.get("mlp_norm", params["norm"]), x, eps=eps))


def ninformer_init(key: jax.Array, dim: int, *, length: int, hidden: int) -> dict[str, Any]:
    """Parameters for so many tokens at most, with MLPs of a hidden width."""
    value, tokens, channels = jax.random.split(key, 3)
    return {
        "value": affine_init(value, dim, dim),
        "mixer": {
            "token_norm": norm_init(dim),
            "tokens": mlp_init(tokens, length, hidden, length),
            "channel_norm": norm_init(dim),
            "channels": mlp_init(channels, dim, hidden),
        },
    }


def make(
    *, dim: int, heads: int, causal: bool = False, max_length: int = 256, hidden: int | None = None
) -> Mixer:
    """Makes the mixer, the gating unit; norm and residual are the block's around it.

    Args:
        dim: model dimension m.
        heads: there are none; a divisor of m, as everywhere.
        causal: False; the gate sees all tokens.
        max_length: the most tokens there may be.
        hidden: width of both MLPs; default 2 m.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=1, max_length=12)
        >>> mixer.apply(mixer.init(jax.random.key(0)), jnp.ones((1, 12, 8))).shape
        (1, 12, 8)
    """
    if causal is not False:
        raise ValueError("causal: ninformer mixes all tokens; pass causal=False")
    check_heads(dim, heads)
    check_count("max_length", max_length)
    hidden = 2 * dim if hidden is None else hidden
    check_count("hidden", hidden)

    return framed(
        "ninformer",
        dim=dim,
        init=lambda key: ninformer_init(key, dim, length=max_length, hidden=hidden),
        apply=lambda params, given: ninformer(params, given.x, given.real),
        takes="row",
        causal=False,
    )


MECHANISM = Mechanism(
    name="ninformer",
    title="NiNformer: a network in a network as a gate",
    arxiv="2403.02411",
    family="channel",
    equation="y = (x W + b) * M(x), M an MLP-Mixer",
    core=ninformer,
    make=make,
    bidirectional=True,
    documents="never",
    cost="linear",
    parameters=("value", "mixer"),
    absent=("query", "key", "output"),
)
