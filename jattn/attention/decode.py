"""One step of decoding: a query for each sequence against a cache of keys and values.

    out = sum_{j < n_b} softmax_j(scale <q, k_j>) v_j,       n_b: how many keys sequence b has

Sequences may be of different lengths (ragged), and the keys may be divided among `splits`, whose
results are merged exactly (arXiv 2311.01282, and `jattn.attention.merge`): a cache that lies on
several devices is merged the same way.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_choice, check_shape
from jattn.platforms import kernels_can_run, platform

IMPLEMENTATIONS = ("xla", "pallas")


def decode(
    query: Float[Array, "b h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    lengths: Int[Array, " b"],
    *,
    window: int | None = None,
    sink: Float[Array, " h"] | None = None,
    scale: float | None = None,
    splits: int = 1,
    return_lse: bool = False,
    implementation: str | None = None,
) -> Any:
    """Softmax attention of one query a sequence to the first `lengths` keys of its cache.

    Args:
        query: `[b, h, d]`.
        key: `[b, s, g, d]`, the cache; what lies behind a sequence's length is not seen, even NaN.
        value: `[b, s, g, e]`. g divides h; head i meets key-value head `i * g // h`.
        lengths: `[b]`, from 0 to s. A sequence without keys gives zeros and lse -inf.
        window: only the last so many keys of each sequence.
        sink: an extra logit a head that joins the sum and has no value, `[h]`.
        scale: default d^-0.5.
        splits: parts of the cache that are worked on separately.
        return_lse: also return the log of the sum of exponentials, sink included.
        implementation: "xla"; "pallas", a TPU kernel that reads only the keys there are (elsewhere
            it is interpreted; it has no gradient); None: the kernel on a TPU.

    Returns:
        `[b, h, e]` in query's dtype; then, if asked for, lse `[b, h]`, float32 (float64).

    Raises:
        ValueError: an argument does not fit.

    Reference:
        arXiv 2311.01282 (splits); arXiv 2205.14135.

    Example:
        >>> q, k = jnp.ones((2, 4, 8)), jnp.ones((2, 16, 2, 8))
        >>> v = jnp.cumsum(k, axis=1)
        >>> decode(q, k, v, jnp.array([3, 0]))[:, 0, 0].round(5).tolist()
        [2.0, 0.0]
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b h d", sizes)
    check_shape("key", key, "b s g d", sizes)
    check_shape("value", value, "b s g e", sizes)
    check_shape("lengths", lengths, "b", sizes)
    check_choice("implementation", implementation, (None, *IMPLEMENTATIONS))
    if sizes["h"] % sizes["g"]:
        raise ValueError(f"key: expected heads that divide h={sizes['h']}, got g={sizes['g']}")
    if sink is not None:
        check_shape("sink", sink, "h", sizes)
    if window is not None and window < 1:
        raise ValueError(f"window: expected at least 1, got {window}")
    if not 1 <= splits <= sizes["s"]:
        raise ValueError(f"splits: expected 1 to s={sizes['s']}, got {splits}")
    scale = sizes["d"] ** -0.5 if scale is None else scale
    lengths = lengths.astype(jnp.int32)
    if implementation == "pallas" or (implementation is None and kernels_can_run()):
        from jattn.attention.tpu.decode import decode_parts  # Loads Pallas, which takes its time.

        out, lse = decode_parts(
            query, key, value, lengths, window, scale, splits, interpret=platform() != "tpu"
        )
    else:
        out, lse = _parts(query, key, value, lengths, window, scale, splits)
    out, lse = merge_parts(out, lse, sink)
    out = out.astype(query.dtype)
    return (out, lse) if return_lse else out


def merge_parts(
    out: Float[Array, "b n h e"],
    lse: Float[Array, "b n h"],
    sink: Float[Array, " h"] | None = None,
) -> tuple[Float[Array, "b h e"], Float[Array, "b h"]]:
    """Attention over all keys from that over n disjoint parts of them, and a sink.

    Args:
        out: the parts' outputs `[b, n, h, e]`.
        lse: their logs of sums `[b, n, h]`, -inf for a part without keys.
        sink: `[h]`.

    Returns:
        `[b, h, e]` and lse `[b, h]`.

    Example:
        >>> out, lse = merge_parts(jnp.array([1.0, 3.0])[None, :, None, None], jnp.zeros((1, 2, 1)))
        >>> out.item(), round(float(lse[0, 0]), 4)
        (2.0, 0.6931)
    """
    logs = lse
    if sink is not None:
        own = jnp.broadcast_to(sink.astype(lse.dtype), (len(lse), 1, lse.shape[2]))
        logs = jnp.concatenate([lse, own], axis=1)
    total = jax.nn.logsumexp(logs, axis=1)
    some = lse > -jnp.inf
    weights = jnp.where(some, jnp.exp(lse - jnp.where(some, total[:, None], 0)), 0)
    return jnp.einsum("bnh,bnhe->bhe", weights, out.astype(weights.dtype)), total


def _parts(query, key, value, lengths, window, scale, splits):
    """Each part's attention, all scores at once: there is one query only."""
    b, h, d = query.shape
    s, g = key.shape[1:3]
    dtype = jnp.promote_types(jnp.result_type(query, key, value), jnp.float32)
    size = -(-s // splits)
    rows = [(0, 0), (0, size * splits - s), (0, 0), (0, 0)]
    key, value = (jnp.pad(x, rows).reshape(b, splits, size, g, -1) for x in (key, value))
    places = jnp.arange(size * splits).reshape(splits, size)
    seen = places < lengths[:, None, None]
    if window is not None:
        seen &= places >= lengths[:, None, None] - window
    # Hidden values may be NaN, which a weight of 0 does not hide.
    value = jnp.where(seen[..., None, None], value, 0).astype(dtype)
    scores = scale * jnp.einsum(
        "bgrd,bnsgd->bngrs",
        query.reshape(b, g, h // g, d),
        key,
        precision="highest",
        preferred_element_type=dtype,
    )
    scores = jnp.where(seen[:, :, None, None], scores, -jnp.inf)
    lse = jax.nn.logsumexp(scores, axis=-1)
    weights = jnp.exp(scores - jnp.where(lse == -jnp.inf, 0, lse)[..., None])
    out = jnp.einsum("bngrs,bnsge->bngre", weights, value, precision="highest")
    return out.reshape(b, splits, h, -1), lse.reshape(b, splits, h)
