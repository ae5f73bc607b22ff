"""One step of decoding: a query for each sequence against a cache of keys and values.

    out = sum_{j < n_b} softmax_j(scale <q, k_j>) v_j,       n_b: how many keys sequence b has

Sequences may be of different lengths (ragged), and the keys may be divided among `splits`, whose
results are merged exactly (arXiv 2311.01282, and `jattn.attention.merge`): a cache that lies on
several devices is merged the same way.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from jattn.attention.attention_args import make_bias, make_scale, make_sink, trace_score_mod
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
    query: Float[Array, "b h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    lengths: Int[Array, " b"],
    *,
    window: int | None = None,
    bias: Array | float | None = None,
    score_mod: ScoreMod | None = None,
    sink: Array | float | None = None,
    scale: Array | float | None = None,
    splits: int = 1,
    return_lse: bool = False,
    implementation: str | None = None,
) -> Any:
    """Softmax attention of one query a sequence to the first `lengths` keys of its cache.

    Args:
        query: `[b, h, d]`.
        key: `[b, s, g, d]`, the cache; what lies behind a sequence's length is not seen, even NaN.
        value: `[b, s, g, e]`. g divides h; head i meets key-value head `i * g // h`.
        lengths: `[b]`, from 0 to s; traced ones are brought within. A sequence without keys gives
            zeros and lse -inf.
        window: only the last so many keys of each sequence.
        bias: added to scores, broadcastable to `[b, h, s]`; -inf hides a key.
        score_mod: as for `attend`; a sequence's query is at position `lengths - 1`.
        sink: an extra logit a head that joins the sum and has no value, a number or `[h]`.
        scale: default d^-0.5.
        splits: parts of the cache that are worked on separately.
        return_lse: also return the log of the sum of exponentials, sink included.
        implementation: "xla"; "pallas", a TPU kernel that reads only the keys there are (elsewhere
            it is interpreted; it has no gradient, bias or score_mod); None: the kernel on a TPU,
            where it can do what is asked.

    Returns:
        `[b, h, e]` in query's dtype; then, if asked for, lse `[b, h]`, float32 (float64).

    Raises:
        ValueError: an argument does not fit.
        NotImplementedError: the kernel cannot do what was asked.

    Reference:
        arXiv 2311.01282 (splits); arXiv 2205.14135.

    Example:
        >>> q, k = jnp.ones((2, 4, 8)), jnp.ones((2, 16, 2, 8))
        >>> v = jnp.cumsum(k, axis=1)
        >>> decode(q, k, v, jnp.array([3, 0]))[:, 0, 0].round(5).tolist()
        [2.0, 0.0]
    """
    sizes: dict[str, int] = {}
    arrays = {"query": query, "key": key, "value": value}
    for name, axes in (("query", "b h d"), ("key", "b s g d"), ("value", "b s g e")):
        check_array(name, arrays[name], "floating")
        check_shape(name, arrays[name], axes, sizes)
    b, h, s, g = (sizes[letter] for letter in "bhsg")
    out_dtype = query.dtype
    check_choice("implementation", implementation, (None, *IMPLEMENTATIONS))
    check_flag("return_lse", return_lse)
    if score_mod is not None and not callable(score_mod):
        raise ValueError(f"score_mod: expected a function, got {said(score_mod)}")
    if g == 0 or h % g:
        raise ValueError(f"key: expected heads that divide h={h}, got g={g}")
    lengths = _checked_lengths(lengths, sizes)
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
        bias = make_bias(given[..., None, :] if given.ndim else given, b, h, 1, s)
    layout = layout_of(
        query, key, value, heads=(h, g, g), head_axis=1,
        kernel=implementation == "pallas" or (implementation is None and on_tpu(query)),
    )  # fmt: skip
    if layout is not None:
        return _over_devices(
            layout, query, key, value, lengths, bias, sink, scale, score_mod, dtype,
            window=window, splits=splits, return_lse=return_lse, implementation=implementation,
        )  # fmt: skip
    if isinstance(scale, jax.Array):
        query, scale = query.astype(dtype) * scale, 1.0
    plain = bias is None and score_mod is None and 0 not in (b, s)
    if implementation == "pallas" and not plain:
        raise NotImplementedError(
            "implementation='pallas': it has no bias, score_mod or array scale"
        )
    if implementation == "pallas" or (implementation is None and plain and kernels_can_run()):
        from jattn.attention.tpu.decode import decode_parts  # Loads Pallas, which takes its time.

        out, lse = decode_parts(
            query, key, value, lengths, window, scale, splits, interpret=platform() != "tpu"
        )
    else:
        scores = _scores(query, key, value, lengths, window, bias, score_mod, scale, dtype)
        out, lse = _parts(scores, value, lengths, window, splits)
    out, lse = merge_parts(out, lse, sink)
    out = out.astype(out_dtype)
    return (out, lse) if return_lse else out


def _over_devices(
    layout, query, key, value, lengths, bias, sink, scale, score_mod, dtype,
    *, return_lse, **options,
):  # fmt: skip
    """`decode` on each device's share of sequences and heads."""
    bias = None if bias is None else bias[:, :, 0]
    operands = {
        "query": (query, layout.spec(query, 0, 1)),
        "key": (key, layout.spec(key, 0, 2)),
        "value": (value, layout.spec(value, 0, 2)),
        "lengths": (lengths, layout.spec(lengths, 0, None)),
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
            sizes = arrays["query"].shape[:2]
            local = at_share(function, closed_over, layout, sizes, dtype)[0].function
        return decode(**arrays, score_mod=local, return_lse=return_lse, **options)

    out = layout.spec(query, 0, 1)
    return over_devices(
        layout, run, (arrays, closed_over), (specs, [PartitionSpec()] * len(closed_over)),
        (out, PartitionSpec(*out[:2])) if return_lse else out,
    )  # fmt: skip


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
    largest = jax.lax.stop_gradient(logs.max(1, keepdims=True, initial=-jnp.inf))
    largest = jnp.where(largest == -jnp.inf, 0, largest)
    total = jnp.exp(logs - largest).sum(1)
    some = total != 0
    safe = jnp.where(some, total, 1)
    weights = jnp.exp(lse - largest) / safe[:, None]
    out = jnp.einsum("bnh,bnhe->bhe", weights, out.astype(weights.dtype))
    return out, jnp.where(some, largest[:, 0] + jnp.log(safe), -jnp.inf)


def _seen(lengths: Array, s: int, window: int | None) -> Array:
    """Which keys each sequence sees, `[b, s]`."""
    index = jnp.arange(s, dtype=jnp.int32)
    seen = index < lengths[:, None]
    return seen if window is None else seen & (index >= lengths[:, None] - window)


def _scores(query, key, value, lengths, window, bias, score_mod, scale, dtype):
    """Scores `[b, h, s]`, -inf where a key is hidden: all at once, for there is one query only."""
    (b, h, d), (s, g) = query.shape, key.shape[1:3]
    seen = _seen(lengths, s, window)
    # What is hidden may be NaN, which neither a weight nor a gradient of 0 hides.
    key = jnp.where(seen[..., None, None], key, 0)
    query = jnp.where(seen.any(1)[:, None, None], query, 0)
    scores = scale * jnp.einsum(
        "bgrd,bsgd->bgrs",
        query.reshape(b, g, h // g, d),
        key,
        precision="highest",
        preferred_element_type=dtype,
    ).reshape(b, h, s)
    shown = seen[:, None]
    if bias is not None:
        bias = bias[:, :, 0]
        shown &= bias != -jnp.inf
        scores += jnp.where(bias != -jnp.inf, bias, 0).astype(dtype)
    if score_mod is not None:

        def at_the_end(score, batch, head, q_index, k_index):
            return score_mod(score, batch, head, lengths[batch] - 1, k_index)

        function, closed_over = trace_score_mod(at_the_end, dtype)
        index = [jnp.arange(n, dtype=jnp.int32) for n in (1, s, b, h)]
        scores = jnp.where(shown, scores, 0)
        scores = function.over_tile(closed_over, *index, score=scores[:, :, None])[:, :, 0]
    return jnp.where(shown, scores, -jnp.inf)


def _parts(scores, value, lengths, window, splits):
    """Each part's attention: out `[b, splits, h, e]` and lse `[b, splits, h]`."""
    (b, h, s), (g, e) = scores.shape, value.shape[2:]
    size = max(-(-s // splits), 1)
    value = jnp.where(_seen(lengths, s, window)[..., None, None], value, 0).astype(scores.dtype)
    rest = size * splits - s
    value = jnp.pad(value, [(0, 0), (0, rest), (0, 0), (0, 0)]).reshape(b, splits, size, g, e)
    scores = jnp.pad(scores, [(0, 0), (0, 0), (0, rest)], constant_values=-jnp.inf)
    scores = scores.reshape(b, g, h // g, splits, size)
    largest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    largest = jnp.where(largest == -jnp.inf, 0, largest)
    weights = jnp.exp(scores - largest)
    total = weights.sum(-1)
    some = total != 0
    safe = jnp.where(some, total, 1)
    out = jnp.einsum("bgrns,bnsge->bngre", weights / safe[..., None], value, precision="highest")
    lse = jnp.where(some, largest[..., 0] + jnp.log(safe), -jnp.inf)
    return out.reshape(b, splits, h, e), jnp.moveaxis(lse, 3, 1).reshape(b, splits, h)
