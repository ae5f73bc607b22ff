"""Grouped differential attention (arXiv 2510.06949): fewer noise maps than signal maps.

    o_i = softmax(q_i K1^T / sqrt(d)) V - lambda softmax(n_i K2^T / sqrt(d)) V

Signal map q of each of h heads, noise map n shared by the `ratio` heads of a group. Keys come in
pairs (K1, K2), the value of a pair has size 2 d, d = m / (2 h) unless given. As in differential
attention, (1 - lambda_init) RMSNorm follows.

Distinctive: the same noise need not be measured once for every signal; the paper finds 3 or 4
signal heads a noise head best. A later model of its authors takes lambda from the token,
sigmoid(x W) for each head (`lambda_mode="token"`), one key for both maps (`share_kv`), and a gate
in place of the norm (`sub_norm=False` within `jattn.mechanisms.combinators.gated`).

Limits: ratio 1 is differential attention (arXiv 2410.05258); lambda = 0 is softmax attention,
normalised.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_choice, check_count, check_flag
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.size_checks import largest_divisor
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.mechanisms.softmax.differential_attention import (
    VECTORS,
    check_maps,
    diff_lambda,
    differential,
    lambda_at,
    lambda_vectors,
)
from jattn.mechanisms.softmax.differential_attention import (
    sub_norm as normalise,
)

LAMBDA_MODES = ("scalar", "token")


def grouped_differential_attention(
    query: Float[Array, "b t maps d"],
    key: Float[Array, "b s keys d"],
    value: Float[Array, "b s g e"],
    lam: Float[Array, ""] | Float[Array, "b t h"],
    *,
    ratio: int,
    share_kv: bool = False,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Grouped differential attention of maps laid out by groups.

    Args:
        query: groups of `ratio` signal maps and then their noise map, `[b, t, n (ratio + 1), d]`.
        key: pairs of a signal's and a noise's key, `[b, s, 2 g, d]`, g a divisor of n; `[b, s, g,
            d]` if shared.
        value: `[b, s, g, e]`.
        lam: lambda, one number, or one of each token and signal head `[b, t, n ratio]`.
        ratio: signal maps a noise map.
        share_kv: both maps have the same keys.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, n ratio, e]`, not normalised yet.

    Raises:
        ValueError: numbers of heads that do not fit.

    Reference:
        arXiv 2510.06949.

    Example:
        >>> q, k = jnp.ones((1, 5, 8, 4)), jnp.ones((1, 5, 4, 4))
        >>> lam = jnp.float32(0.5)
        >>> grouped_differential_attention(q, k, k[:, :, :2], lam, ratio=3).shape
        (1, 5, 6, 4)
    """
    b, t, maps, d = query.shape
    if ratio < 1 or maps % (ratio + 1):
        raise ValueError(f"query: expected groups of {ratio} + 1 maps, got {maps} maps")
    groups = query.reshape(b, t, -1, ratio + 1, d)
    signal, noise = groups[..., :ratio, :].reshape(b, t, -1, d), groups[..., ratio, :]
    keys = (key, key) if share_kv else (key[:, :, 0::2], key[:, :, 1::2])
    return differential(signal, noise, *keys, value, lam, mask=mask)


def check_ratio(heads: int, ratio: int) -> None:
    """Raises a ValueError unless the ratio is a divisor of the signal heads."""
    check_count("heads", heads)
    check_count("ratio", ratio, 0)
    if ratio < 1 or heads % ratio:
        raise ValueError(f"ratio: expected a divisor of heads={heads}, got {ratio}")


def grow(params: dict[str, Array], *, heads: int, ratio: int, copies: int) -> dict[str, Array]:
    """Parameters with every signal head `copies` times, which compute the same.

    Noise heads stay as they are, so there are more signal heads for each: the copies are to grow
    apart in further training. The rows of the output projection are divided among them.

    Args:
        params: of a mixer with `heads` signal heads and this ratio.
        heads: h.
        ratio: signal heads a noise head.
        copies: how many of each signal head there will be.

    Returns:
        Parameters for `make(heads=heads * copies, ratio=ratio * copies, head_dim=d, ...)`, d the
        size of a map, and the same dim, kv_heads and other options. Heads keep their size, so
        together they are wider than dim.

    Raises:
        ValueError: a ratio that is no divisor of heads, or copies below 1.

    Reference:
        arXiv 2510.06949, group-differentiated growth.

    Example:
        >>> small = make(dim=24, heads=4, ratio=2)
        >>> grown = grow(small.init(jax.random.key(0)), heads=4, ratio=2, copies=5)
        >>> large = make(dim=24, heads=20, ratio=10, head_dim=3)
        >>> large.apply(grown, jnp.ones((1, 6, 24))).shape
        (1, 6, 24)
    """
    check_count("copies", copies)
    check_ratio(heads, ratio)
    m = params["query"].shape[0]
    groups = params["query"].reshape(m, heads // ratio, ratio + 1, -1)
    signal, noise = groups[:, :, :ratio], groups[:, :, ratio:]
    groups = jnp.concatenate([jnp.repeat(signal, copies, axis=2), noise], axis=2)
    rows = params["output"].reshape(heads, -1, m) / copies
    grown = {
        "query": groups.reshape(m, -1),
        "output": jnp.repeat(rows, copies, axis=0).reshape(-1, m),
    }
    if "lambda" in params:
        grown["lambda"] = jnp.repeat(params["lambda"], copies, axis=1)
    return params | grown


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    window: int | None = None,
    ratio: int | None = None,
    head_dim: int | None = None,
    depth: int = 0,
    lambda_mode: str = "scalar",
    share_kv: bool = False,
    sub_norm: bool = True,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: signal heads h; 2 h divides m unless `head_dim` is given.
        causal: hide later tokens.
        kv_heads: value heads g, a divisor of the noise heads h / ratio; default as many.
        rotary: rotate queries and keys by their positions; self-attention only.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).
        ratio: signal heads a noise head, a divisor of h; default the largest one up to 4.
        head_dim: size d of a map, half of that of a value; default m / (2 h).
        depth: of the layer, 0, 1, ...; sets lambda_init.
        lambda_mode: `"scalar"`, one lambda from four vectors, or `"token"`, sigmoid(x W).
        share_kv: signal and noise maps have the same keys.
        sub_norm: normalise what each head gives.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=48, heads=6, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["query"].shape, jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 48))).shape
        ((48, 32), (1, 6, 48))
    """
    head_dim = check_maps(dim, heads, depth, head_dim)
    check_choice("lambda_mode", lambda_mode, LAMBDA_MODES)
    ratio = largest_divisor(heads, 4) if ratio is None else ratio
    check_ratio(heads, ratio)
    noise_heads = heads // ratio
    groups = noise_heads if kv_heads is None else kv_heads
    check_count("kv_heads", groups, 0)
    if groups < 1 or noise_heads % groups:
        raise ValueError(
            f"kv_heads: expected a divisor of the {noise_heads} noise heads, got {groups}"
        )
    for name, flag in (("rotary", rotary), ("share_kv", share_kv), ("sub_norm", sub_norm)):
        check_flag(name, flag)
    if rotary and head_dim % 2:
        raise ValueError(f"rotary: needs an even dim / (2 heads) or head_dim, got {head_dim}")
    lambda_init = lambda_at(depth)
    query_maps, keys = heads + noise_heads, groups if share_kv else 2 * groups

    def init(key):
        query_key, key_key, lambda_key = jax.random.split(key, 3)
        own = {
            "query": linear_init(query_key, dim, query_maps * head_dim),
            "key": linear_init(key_key, dim, keys * head_dim),
        }
        if lambda_mode == "token":
            own["lambda"] = linear_init(lambda_key, dim, heads)
        else:
            own |= lambda_vectors(lambda_key, head_dim)
        return own | ({"sub_norm": jnp.ones(2 * head_dim)} if sub_norm else {})

    def prepare(params, maps, x, source):
        return (
            split_heads(maps["query"], query_maps),
            split_heads(maps["key"], keys),
            split_heads(maps["value"], groups),
        )

    def core(params, query, key, value, context):
        if lambda_mode == "token":
            lam = jax.nn.sigmoid(linear(context.x, params["lambda"]))
        else:
            lam = diff_lambda(**{name: params[name] for name in VECTORS}, lambda_init=lambda_init)
        out = grouped_differential_attention(
            query, key, value, lam, ratio=ratio, share_kv=share_kv, mask=context.mask
        )
        return normalise(out, params["sub_norm"], lambda_init) if sub_norm else out

    return attention_mixer(
        "grouped_differential_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        kv_heads=groups,
        head_dim=2 * head_dim,
        init=init,
        prepare=prepare,
        rotary=rotary,
        window=window,
        any_size=True,
    )


MECHANISM = Mechanism(
    name="grouped_differential_attention",
    title="Grouped differential attention",
    arxiv="2510.06949",
    family="softmax",
    equation="o_i = (softmax(q_i.K1) - lambda softmax(n_i.K2)) V, n shared by a group of heads",
    core=grouped_differential_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
    parameters=(*VECTORS, "sub_norm"),
)
