"""The recurrence over sequences of different lengths that lie behind one another in one row."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jattn.checks import check_array, check_flag, check_shape
from jattn.recurrence.recur import recur


def recur_packed(
    query: Float[Array, "1 t gq d"],
    key: Float[Array, "1 t g d"],
    value: Float[Array, "1 t gv e"],
    cu_seqlens: Int[Array | np.ndarray, " n1"],
    *,
    decay: Float[Array, "1 t h"] | Float[Array, "1 t h d"] | None = None,
    value_decay: Float[Array, "1 t h e"] | None = None,
    beta: Float[Array, "1 t h"] | Float[Array, "1 t h e"] | None = None,
    erase_key: Float[Array, "1 t gr d"] | None = None,
    initial_state: Float[Array, "n h d e"] | None = None,
    mode: Literal["scan", "chunk", "parallel"] | None = None,
    chunk_size: int = 64,
    return_state: bool = False,
    implementation: Literal["xla", "pallas"] | None = None,
) -> Any:  # One array, or with `return_state` a pair: see Returns.
    """Runs `recur` over n sequences in one row, each from a state of its own.

    It gives what running them apart gives, in one program whatever their lengths. Where a sequence
    begins, a decay of -inf forgets what was before. A state goes in as d tokens in front of its
    sequence, the i-th of which writes row i at the i-th unit key, and comes out as d tokens behind
    it, which read at the unit queries. So every mode and kernel serves; states that are given, and
    states that are asked for, cost n d tokens each.

    Args:
        query, key, value: as for `recur`, with a batch axis of 1.
        cu_seqlens: where sequences begin and where the last one ends, `[n + 1]`: from 0, not
            falling, up to t. Sequences may be empty. What lies behind the last one is one sequence
            more, which begins from nothing.
        decay, value_decay, beta, erase_key: as for `recur`.
        initial_state: of each sequence; None is zero.
        mode, chunk_size, implementation: as for `recur`.
        return_state: whether to return each sequence's state after its last token as well.

    Returns:
        `[1, t, h, e]` of the inputs' type, or with `return_state` the pair of it and the states
        `[n, h, d, e]`, as `recur` gives them. Where states are given or asked for, all arithmetic
        is done in their type, and kernels have no use for inputs of 16 bits.

    Raises:
        ValueError: shapes or boundaries that do not fit.

    Example:
        >>> import jax
        >>> q, k, v = (jax.random.normal(jax.random.key(i), (1, 7, 2, 4)) for i in range(3))
        >>> packed = recur_packed(q, k, v, jnp.array([0, 3, 7]))
        >>> apart = recur(q[:, 3:], k[:, 3:], v[:, 3:])
        >>> bool(jnp.abs(packed[:, 3:] - apart).max() < 1e-5)
        True
    """
    sizes: dict[str, int] = {"b": 1}
    arrays = {"query": query, "key": key, "value": value}
    for name, axes in (("query", "b t gq d"), ("key", "b t g d"), ("value", "b t gv e")):
        check_array(name, arrays[name], "floating")
        check_shape(name, arrays[name], axes, sizes)
    check_flag("return_state", return_state)
    ends = _checked_boundaries(cu_seqlens, sizes["t"])
    sizes |= {"n": len(ends) - 1, "h": max(sizes["gq"], sizes["gv"])}
    kind = jnp.result_type(query, key, value)
    if decay is None:
        decay = jnp.zeros((1, sizes["t"], sizes["h"]), jnp.promote_types(kind, jnp.float32))
    rates = {"decay": decay, "value_decay": value_decay, "beta": beta, "erase_key": erase_key}
    for name, rate in rates.items():
        if rate is not None:
            check_array(name, rate, "floating")
            if rate.shape[:2] != query.shape[:2]:
                want = f"[1, t={sizes['t']}, ...]"
                raise ValueError(f"{name}: expected shape {want}, got {list(rate.shape)}")
            arrays[name] = rate
    d, h, n = sizes["d"], sizes["h"], sizes["n"]
    front, behind = d if initial_state is not None else 0, d if return_state else 0
    if front or behind:
        wide = jnp.promote_types(kind, jnp.float32)
        arrays = {name: array.astype(wide) for name, array in arrays.items()}

    own = jnp.searchsorted(ends[1:], jnp.arange(sizes["t"]), side="right")  # n: behind the last
    room = front + behind
    token = jnp.arange(sizes["t"]) + own * room + jnp.where(own < n, front, 0)
    begin = ends + jnp.arange(n + 1) * room  # of every sequence, and of what is behind the last
    length = sizes["t"] + n * room
    spread = {
        name: jnp.zeros((1, length, *array.shape[2:]), array.dtype).at[:, token].set(array)
        for name, array in arrays.items()
    }
    # A row that ends with the last sequence has nothing behind it to forget for.
    spread["decay"] = spread["decay"].at[:, begin].set(-jnp.inf, mode="drop")
    unit = jnp.eye(d, dtype=spread["query"].dtype)[:, None]
    if initial_state is not None:
        check_array("initial_state", initial_state, "floating")
        check_shape("initial_state", initial_state, "n h d e", sizes)
        rows = begin[:-1, None] + jnp.arange(d)
        # Heads that share values have states of their own.
        value = jnp.repeat(spread["value"], h // sizes["gv"], axis=2)
        written = jnp.swapaxes(initial_state, 1, 2).astype(value.dtype)
        spread["value"] = value.at[:, rows].set(written)
        spread["key"] = spread["key"].at[:, rows].set(unit)
        if beta is not None:
            spread["beta"] = spread["beta"].at[:, rows].set(1)
    rows = begin[1:, None] - behind + jnp.arange(behind)
    spread["query"] = spread["query"].at[:, rows].set(unit if behind else 0)
    given: dict[str, Any] = spread
    out = recur(**given, mode=mode, chunk_size=chunk_size, implementation=implementation)
    reads = out[:, token].astype(kind)
    return (reads, jnp.swapaxes(out[0, rows], 1, 2)) if return_state else reads


def _checked_boundaries(cu_seqlens: Any, t: int) -> Array:
    check_array("cu_seqlens", cu_seqlens, "integer")
    if cu_seqlens.ndim != 1 or len(cu_seqlens) < 2:
        raise ValueError(
            f"cu_seqlens: expected [n + 1] boundaries of n >= 1 sequences, got shape "
            f"{list(cu_seqlens.shape)}"
        )
    if not isinstance(cu_seqlens, Tracer):
        ends = np.asarray(cu_seqlens).astype(np.int64)
        if ends[0] != 0 or ends[-1] > t or (np.diff(ends) < 0).any():
            raise ValueError(
                f"cu_seqlens: expected boundaries from 0, not falling, up to t={t}, got "
                f"{ends[:6].tolist()}{' ...' if len(ends) > 6 else ''}"
            )
    return jnp.clip(jnp.asarray(cu_seqlens), 0, t).astype(jnp.int32)
