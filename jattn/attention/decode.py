"""Decoding: the newest queries of each sequence against a cache of keys and values.

    out_i = sum_{j <= p_i} softmax_j(scale <q_i, k_j>) v_j,    p_i = length_b - n + i

for n new tokens of a sequence whose cache holds `length_b` keys, theirs included: one token a step,
several (speculative decoding), or a chunk of a prompt. Sequences may be of different lengths
(ragged), their caches may lie in pages of a shared pool (arXiv 2309.06180), and the keys may be
divided among `splits`, whose results are merged exactly (arXiv 2311.01282, and
`jattn.attention.merge`): a cache that lies on several devices is merged the same way.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from jattn.attention.attention_args import make_bias, make_scale, make_sink, trace_score_mod
from jattn.attention.decode_dense import decode_dense, gather_pages
from jattn.attention.devices import at_share
from jattn.attention.scores import ScoreMod
from jattn.checks import (
    as_floating,
    check_array,
    check_choice,
    check_count,
    check_flag,
    check_shape,
    said,
)
from jattn.platforms import kernels_can_run, platform
from jattn.sharding import layout_of, on_tpu, over_devices

IMPLEMENTATIONS = ("xla", "pallas")


def decode(
    query: Float[Array, "b h d"] | Float[Array, "b n h d"],
    key: Float[Array, "b s g d"] | Float[Array, "p c g d"],
    value: Float[Array, "b s g e"] | Float[Array, "p c g e"],
    lengths: Int[Array, " b"],
    *,
    pages: Int[Array | np.ndarray, "b m"] | None = None,
    window: int | None = None,
    bias: Array | float | None = None,
    score_mod: ScoreMod | None = None,
    sink: Array | float | None = None,
    scale: Array | float | None = None,
    splits: int = 1,
    return_lse: bool = False,
    implementation: str | None = None,
) -> Any:
    """Softmax attention of the newest queries of each sequence to its cache.

    Args:
        query: `[b, h, d]`, one a sequence; or `[b, n, h, d]`, its last n tokens, of which each sees
            those before it and itself.
        key: `[b, s, g, d]`, the cache; what lies behind a sequence's length is not seen, even NaN.
            With `pages`, a pool `[p, c, g, d]` of p pages of c keys each.
        value: `[b, s, g, e]`, or `[p, c, g, e]`. g divides h; head i meets key-value head
            `i * g // h`.
        lengths: `[b]`, from 0 to s, the new tokens included; traced ones are brought within. A
            query without keys gives zeros and lse -inf.
        pages: `[b, m]`: page j of a sequence holds its keys j c to (j + 1) c - 1, and s = m c.
            What stands behind its last page is not looked at.
        window: only the last so many keys of each query.
        bias: added to scores, broadcastable to `[b, h, s]`, or to `[b, h, n, s]`; -inf hides a key.
        score_mod: as for `attend`; the queries are at the last positions.
        sink: an extra logit a head that joins the sum and has no value, a number or `[h]`.
        scale: default d^-0.5.
        splits: parts of the cache that are worked on separately.
        return_lse: also return the log of the sum of exponentials, sink included.
        implementation: "xla", which copies the pages of each sequence together; "pallas", a TPU
            kernel that reads only the keys there are, where they lie (elsewhere it is interpreted;
            it has no gradient, bias or score_mod); None: the kernel on a TPU, where it can do what
            is asked.

    Returns:
        `[b, h, e]` or `[b, n, h, e]` in query's dtype; then, if asked for, lse `[b, h]` or
        `[b, n, h]`, float32 (float64).

    Raises:
        ValueError: an argument does not fit.
        NotImplementedError: the kernel cannot do what was asked.

    Reference:
        arXiv 2311.01282 (splits); arXiv 2205.14135; arXiv 2309.06180 (pages).

    Example:
        >>> q, k = jnp.ones((2, 4, 8)), jnp.ones((2, 16, 2, 8))
        >>> v = jnp.cumsum(k, axis=1)
        >>> decode(q, k, v, jnp.array([3, 0]))[:, 0, 0].round(5).tolist()
        [2.0, 0.0]
        >>> pool = v.reshape(8, 4, 2, 8)  # The first sequence's first page, then the other's.
        >>> decode(q, k.reshape(8, 4, 2, 8), pool, jnp.array([3, 1]), pages=jnp.array([[0], [4]]))[
        ...     :, 0, 0
        ... ].round(5).tolist()
        [2.0, 1.0]
    """
    sizes: dict[str, int] = {}
    single = getattr(query, "ndim", 4) == 3
    check_array("query", query, "floating")
    check_shape("query", query, "b h d" if single else "b n h d", sizes)
    axes = "b s" if pages is None else "p c"
    for name, array, rest in (("key", key, "g d"), ("value", value, "g e")):
        check_array(name, array, "floating")
        check_shape(name, array, f"{axes} {rest}", sizes)
    if pages is not None:
        check_array("pages", pages, "integer")
        check_shape("pages", pages, "b m", sizes)
        sizes["s"] = sizes["m"] * sizes["c"]
    b, h, s, g = (sizes[letter] for letter in "bhsg")
    n = sizes.get("n", 1)
    out_dtype = query.dtype
    check_choice("implementation", implementation, (None, *IMPLEMENTATIONS))
    check_flag("return_lse", return_lse)
    if score_mod is not None and not callable(score_mod):
        raise ValueError(f"score_mod: expected a function, got {said(score_mod)}")
    if g == 0 or h % g:
        raise ValueError(f"key: expected heads that divide h={h}, got g={g}")
    lengths = _checked_lengths(lengths, sizes)
    if pages is not None:
        pages = _checked_pages(pages, lengths, sizes)
    dtype = jnp.promote_types(jnp.result_type(query, key, value), jnp.float32)
    if sink is not None:
        sink = make_sink(sink, sizes).astype(dtype)[0, :, 0]
    if window is not None:
        check_count("window", window, 1)
        window = min(window, s)
    check_count("splits", splits, 1)
    if splits > max(s, 1):
        raise ValueError(f"splits: expected 1 to s={s}, got {splits}")
    scale = make_scale(scale, sizes["d"])
    if bias is not None:
        given = as_floating("bias", bias)
        given = given[..., None, :] if single and given.ndim else given
        bias = make_bias(given, b, h, n, s)
    query = query[:, None] if single else query
    spread = (query, key, value) if pages is None else (query,)  # No sequence owns a pool.
    layout = layout_of(
        *spread, heads=(h, g, g),
        kernel=implementation == "pallas" or (implementation is None and on_tpu(query)),
    )  # fmt: skip
    if layout is not None:
        results = _over_devices(
            layout, query, key, value, lengths, pages, bias, sink, scale, score_mod, dtype,
            window=window, splits=splits, return_lse=return_lse, implementation=implementation,
        )  # fmt: skip
        return jax.tree.map(lambda x: x[:, 0], results) if single else results
    if isinstance(scale, jax.Array):
        query, scale = query.astype(dtype) * scale, 1.0
    plain = bias is None and score_mod is None and 0 not in (b, s, n)
    if implementation == "pallas" and not plain:
        raise NotImplementedError(
            "implementation='pallas': it has no bias, score_mod or array scale"
        )
    if implementation == "pallas" or (implementation is None and plain and kernels_can_run()):
        from jattn.attention.tpu.decode import decode_parts  # Loads Pallas, which takes its time.

        out, lse = decode_parts(
            query, key, value, lengths, pages, window, scale, splits, interpret=platform() != "tpu"
        )
    else:
        if pages is not None:
            key, value = gather_pages(key, pages), gather_pages(value, pages)
        out, lse = decode_dense(
            query, key, value, lengths, window=window, bias=bias, score_mod=score_mod,
            scale=scale, splits=splits, dtype=dtype,
        )  # fmt: skip
    out, lse = merge_parts(out, lse, sink)
    out = out.astype(out_dtype)
    if single:
        out, lse = out[:, 0], lse[:, 0]
    return (out, lse) if return_lse else out


def _over_devices(
    layout, query, key, value, lengths, pages, bias, sink, scale, score_mod, dtype,
    *, return_lse, **options,
):  # fmt: skip
    """`decode` on each device's share of sequences and heads; a pool of pages is everywhere."""
    rows = 0 if pages is None else None
    operands = {
        "query": (query, layout.spec(query, 0, 2)),
        "key": (key, layout.spec(key, rows, 2)),
        "value": (value, layout.spec(value, rows, 2)),
        "lengths": (lengths, layout.spec(lengths, 0, None)),
        "pages": (pages, None if pages is None else layout.spec(pages, 0, None)),
        "bias": (bias, None if bias is None else layout.spec(bias, 0, 1)),
        "sink": (sink, None if sink is None else layout.spec(sink, None, 0)),
        "scale": (scale, PartitionSpec()),
    }
    operands = {name: pair for name, pair in operands.items() if isinstance(pair[0], jax.Array)}
    if not isinstance(scale, jax.Array):
        options["scale"] = scale
    arrays, specs = ({name: pair[n] for name, pair in operands.items()} for n in (0, 1))
    function, closed_over = None, []
    if score_mod is not None:
        function, closed_over = trace_score_mod(score_mod, dtype)

    def run(share):
        arrays, closed_over = share
        local = None
        if function is not None:
            b, _, h, _ = arrays["query"].shape
            local = at_share(function, closed_over, layout, (b, h), dtype)[0].function
        return decode(**arrays, score_mod=local, return_lse=return_lse, **options)

    out = layout.spec(query, 0, 2)
    return over_devices(
        layout, run, (arrays, closed_over), (specs, [PartitionSpec()] * len(closed_over)),
        (out, PartitionSpec(*out[:3])) if return_lse else out,
    )  # fmt: skip


def _checked_pages(pages: Any, lengths: Array, sizes: dict[str, int]) -> Array:
    """Page numbers; those that no sequence reaches, and traced ones, are brought within."""
    count, page = sizes["p"], sizes["c"]
    if not isinstance(pages, Tracer) and not isinstance(lengths, Tracer):
        reached = np.arange(sizes["m"]) * page < np.asarray(lengths)[:, None]
        outside = np.asarray(pages)[reached & ((pages < 0) | (pages >= count))]
        if outside.size:
            raise ValueError(f"pages: expected 0 to {count - 1}, got {outside[0]}")
    return jnp.clip(jnp.asarray(pages), 0, max(count - 1, 0)).astype(jnp.int32)


def _checked_lengths(lengths: Any, sizes: dict[str, int]) -> Array:
    check_array("lengths", lengths, "integer")
    check_shape("lengths", lengths, "b", sizes)
    if not isinstance(lengths, Tracer):
        values = np.asarray(lengths)
        outside = values[(values < 0) | (values > sizes["s"])]
        if outside.size:
            raise ValueError(f"lengths: expected 0 to s={sizes['s']}, got {outside[0]}")
    return jnp.clip(lengths, 0, sizes["s"]).astype(jnp.int32)


def merge_parts(
    out: Float[Array, "b p n h e"],
    lse: Float[Array, "b p n h"],
    sink: Float[Array, " h"] | None = None,
) -> tuple[Float[Array, "b n h e"], Float[Array, "b n h"]]:
    """Attention over all keys from that over p disjoint parts of them, and a sink.

    Args:
        out: the parts' outputs `[b, p, n, h, e]`.
        lse: their logs of sums `[b, p, n, h]`, -inf for a part without keys.
        sink: `[h]`.

    Returns:
        `[b, n, h, e]` and lse `[b, n, h]`.

    Example:
        >>> out = jnp.array([1.0, 3.0])[None, :, None, None, None]
        >>> out, lse = merge_parts(out, jnp.zeros((1, 2, 1, 1)))
        >>> out.item(), round(lse.item(), 4)
        (2.0, 0.6931)
    """
    logs = lse
    if sink is not None:
        own = jnp.broadcast_to(sink.astype(lse.dtype), (len(lse), 1, *lse.shape[2:]))
        logs = jnp.concatenate([lse, own], axis=1)
    largest = jax.lax.stop_gradient(logs.max(1, keepdims=True, initial=-jnp.inf))
    largest = jnp.where(largest == -jnp.inf, 0, largest)
    total = jnp.exp(logs - largest).sum(1)
    some = total != 0
    safe = jnp.where(some, total, 1)
    weights = jnp.exp(lse - largest) / safe[:, None]
    out = jnp.einsum("bpnh,bpnhe->bnhe", weights, out.astype(weights.dtype))
    return out, jnp.where(some, largest[:, 0] + jnp.log(safe), -jnp.inf)
