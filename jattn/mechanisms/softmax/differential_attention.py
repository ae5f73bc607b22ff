"""Differential attention (Ye et al. 2024, arXiv 2410.05258): what two softmax maps do not share.

    o_i = (softmax(q1_i K1^T / sqrt(d)) - lambda softmax(q2_i K2^T / sqrt(d))) V
    lambda = exp(l_q1 . l_k1) - exp(l_q2 . l_k2) + lambda_init
    y_i = concat over heads of (1 - lambda_init) RMSNorm(o_i), projected

A head has two queries and two keys of size d and one value of size 2 d, d = m / (2 h); so `heads`
is half of what softmax attention of the same width would have. lambda_init = 0.8 - 0.6 e^(-0.3
depth) grows with the depth of the layer.

Distinctive: noise that both maps see cancels. Weights of a row sum to 1 - lambda and may be
negative.

Limits: lambda = 0 is softmax attention, normalised. Two equal maps are, too: the norm takes the
factor 1 - lambda away. With several signal maps a noise map it is grouped differential attention.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.attention import attend
from jattn.checks import check_choice, check_count, check_flag
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.layers.heads import split_qkv
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer

PAIRINGS = ("within_head", "authors")
VECTORS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


def differential(
    query: Float[Array, "b t h d"],
    noise_query: Float[Array, "b t n d"],
    key: Float[Array, "b s g d"],
    noise_key: Float[Array, "b s gn d"],
    value: Float[Array, "b s gv e"],
    lam: Float[Array, ""] | Float[Array, "b t h"],
    *,
    mask=None,
) -> Float[Array, "b t h e"]:
    """`attend(query, key, value) - lam * attend(noise_query, noise_key, value)`.

    To subtract outputs is to subtract maps, as they share the value.

    Args:
        query: h signal maps, `[b, t, h, d]`.
        noise_query: n noise maps `[b, t, n, d]`, n a divisor of h; each serves h / n neighbours.
        key: `[b, s, g, d]`, g a divisor of h.
        noise_key: `[b, s, gn, d]`, gn a divisor of n.
        value: `[b, s, gv, e]`, gv a divisor of n.
        lam: lambda, one number, or one of each token and signal map `[b, t, h]`.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`, not normalised yet.

    Raises:
        ValueError: numbers of heads that do not fit.

    Reference:
        arXiv 2410.05258; with h > n, arXiv 2510.06949.

    Example:
        >>> x = jnp.ones((1, 5, 4, 8))
        >>> out = differential(x, x[:, :, :2], x, x[:, :, :1], x[:, :, :1], jnp.float32(0.25))
        >>> out.shape, float(out[0, 0, 0, 0])
        ((1, 5, 4, 8), 0.75)
    """
    heads, noise_heads = query.shape[2], noise_query.shape[2]
    if noise_heads == 0 or heads % noise_heads:
        raise ValueError(
            f"noise_query: expected heads that divide query's {heads}, got {noise_heads}"
        )
    signal = attend(query, key, value, mask=mask)
    noise = attend(noise_query, noise_key, value, mask=mask)
    noise = jnp.repeat(noise, heads // noise_heads, axis=2)
    return signal - lam[..., None].astype(signal.dtype) * noise


def differential_attention(
    query: Float[Array, "b t two_h d"],
    key: Float[Array, "b s two_g d"],
    value: Float[Array, "b s g e"],
    lam: Float[Array, ""] | Float[Array, "b t h"],
    *,
    pairing: str = "within_head",
    mask=None,
) -> Float[Array, "b t h e"]:
    """Differential attention of heads with two maps each, signal and noise side by side.

    Args:
        query: maps 2 n and 2 n + 1 are the signal and the noise of head n, `[b, t, 2 h, d]`.
        key: `[b, s, 2 g, d]`, g a divisor of h.
        value: `[b, s, g, e]`; head n of h takes value n // (h / g).
        lam: lambda, one number, or one of each token and head `[b, t, h]`.
        pairing: where g < h, `"within_head"`: the signal of head n has key 2 (n // (h / g)), its
            noise the next one. `"authors"`: map m has key m // (h / g), as in the published code,
            so the two maps of a head may share a key.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`, not normalised yet; see `sub_norm`.

    Raises:
        ValueError: an unknown pairing, or numbers of heads that do not fit.

    Reference:
        arXiv 2410.05258.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 5, 4, 8))
        >>> differential_attention(x, x, x[:, :, :2], jnp.float32(0.2)).shape
        (1, 5, 2, 8)
    """
    check_choice("pairing", pairing, PAIRINGS)
    maps, keys = query.shape[2], key.shape[2]
    if maps % 2 or keys % 2 or keys == 0 or maps % keys:
        raise ValueError(
            "key: expected two key heads a value head, of a number that divides the "
            f"{maps} maps of query, got {keys}"
        )
    if pairing == "authors":
        key_of = np.arange(maps) // (maps // keys)
        signal_key, noise_key = key[:, :, key_of[0::2]], key[:, :, key_of[1::2]]
    else:
        signal_key, noise_key = key[:, :, 0::2], key[:, :, 1::2]
    signal, noise = query[:, :, 0::2], query[:, :, 1::2]
    return differential(signal, noise, signal_key, noise_key, value, lam, mask=mask)


def lambda_at(depth: int) -> float:
    """lambda_init of a layer, `0.8 - 0.6 exp(-0.3 depth)`; the first layer has depth 0.

    Example:
        >>> round(lambda_at(0), 3), round(lambda_at(100), 3)
        (0.2, 0.8)
    """
    return float(0.8 - 0.6 * np.exp(-0.3 * depth))


def diff_lambda(
    lambda_q1: Float[Array, " d"],
    lambda_k1: Float[Array, " d"],
    lambda_q2: Float[Array, " d"],
    lambda_k2: Float[Array, " d"],
    lambda_init: float | Float[Array, ""],
) -> Float[Array, ""]:
    """`exp(l_q1 . l_k1) - exp(l_q2 . l_k2) + lambda_init`.

    Example:
        >>> zero = jnp.zeros(4)
        >>> float(diff_lambda(zero, zero, zero, zero, 0.5))
        0.5
    """
    return jnp.exp(lambda_q1 @ lambda_k1) - jnp.exp(lambda_q2 @ lambda_k2) + lambda_init


def sub_norm(
    out: Float[Array, "b t h e"],
    weight: Float[Array, " e"] | None,
    lambda_init: float | Float[Array, ""],
) -> Float[Array, "b t h e"]:
    """`(1 - lambda_init) weight * out / rms(out)`, each head by itself.

    The factor brings gradients to the size that softmax attention's have.
    """
    return ((1 - lambda_init) * rms_norm(out, weight, eps=1e-5)).astype(out.dtype)


def lambda_vectors(key: jax.Array, head_dim: int) -> dict[str, Float[Array, " d"]]:
    """The four vectors of `diff_lambda`, drawn from N(0, 0.1^2)."""
    drawn = 0.1 * jax.random.normal(key, (4, head_dim))
    return dict(zip(VECTORS, drawn, strict=True))


def check_maps(dim: int, heads: int, depth: int, head_dim: int | None = None) -> int:
    """Size d of the maps of a head, `head_dim` or what is left of dim for each of them.

    Raises:
        ValueError: dim does not split into two maps a head, or a negative depth.
    """
    if head_dim is not None:
        for name, size in (("dim", dim), ("heads", heads), ("head_dim", head_dim)):
            check_count(name, size)
        check_count("depth", depth, 0)
        return head_dim
    check_heads(dim, heads)
    if dim % (2 * heads):
        raise ValueError(
            f"heads: two maps a head need dim / (2 heads) whole, got {dim} / (2 * {heads})"
        )
    check_count("depth", depth, 0)
    return dim // (2 * heads)


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    window: int | None = None,
    depth: int = 0,
    pairing: str = "within_head",
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: heads h, each of two maps; 2 h divides m.
        causal: hide later tokens.
        kv_heads: value heads g, each with two keys, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).
        depth: of the layer, 0, 1, ...; sets lambda_init.
        pairing: see `differential_attention`.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=2, causal=True, depth=3)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["lambda_q1"].shape
        (8,)
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    head_dim = check_maps(dim, heads, depth)
    check_choice("pairing", pairing, PAIRINGS)
    check_flag("rotary", rotary)
    if rotary and head_dim % 2:
        raise ValueError(f"rotary: needs an even dim / (2 heads), got {head_dim}")
    groups = heads if kv_heads is None else kv_heads
    lambda_init = lambda_at(depth)

    def init(key):
        return lambda_vectors(key, head_dim) | {"sub_norm": jnp.ones(2 * head_dim)}

    def prepare(params, maps, x, source):
        query, key, value = split_qkv(maps, 2 * heads, 2 * groups)
        return query, key, value.reshape(*value.shape[:2], groups, -1)

    def core(params, query, key, value, context):
        lam = diff_lambda(**{name: params[name] for name in VECTORS}, lambda_init=lambda_init)
        out = differential_attention(query, key, value, lam, pairing=pairing, mask=context.mask)
        return sub_norm(out, params["sub_norm"], lambda_init)

    return attention_mixer(
        "differential_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        kv_heads=kv_heads,
        init=init,
        prepare=prepare,
        rotary=rotary,
        window=window,
    )


MECHANISM = Mechanism(
    name="differential_attention",
    title="Differential transformer",
    arxiv="2410.05258",
    family="softmax",
    equation="o_i = (softmax(q1_i.K1) - lambda softmax(q2_i.K2)) V, then RMSNorm",
    core=differential_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
    parameters=(*VECTORS, "sub_norm"),
)
