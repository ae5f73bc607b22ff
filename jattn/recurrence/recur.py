"""`recur`: one linear recurrence behind linear attention, decays, gates and delta rules."""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_choice, check_shape
from jattn.platforms import is_hopper, kernels_can_run, platform
from jattn.recurrence.chunked import recur_chunked
from jattn.recurrence.scan import recur_scan

WIDEST = 256  # Channels of a key that registers and shared memory of a GPU can hold.


def recur(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t gv e"],
    *,
    decay: Float[Array, "b t h"] | Float[Array, "b t h d"] | None = None,
    beta: Float[Array, "b t h"] | None = None,
    initial_state: Float[Array, "b h d e"] | None = None,
    mode: Literal["scan", "chunk", "parallel"] | None = None,
    chunk_size: int = 64,
    return_state: bool = False,
    implementation: Literal["xla", "pallas"] | None = None,
) -> Any:  # One array, or with `return_state` a pair: see Returns.
    """Runs a linear recurrence over a matrix state and reads it at every token.

    Per batch entry and head, with a_t = exp(decay_t) (1 without a decay),

        S_t = a_t S_{t-1} + k_t v_t^T                                         (Hebbian write)
        S_t = a_t S_{t-1} + beta_t k_t (v_t - (a_t S_{t-1})^T k_t)^T          (delta rule)
        o_t = S_t^T q_t

    so the read sees the token's own write, and the delta rule's prediction is made by the state
    after it has decayed. There is no hidden scale: multiply `query` by `d**-0.5` where wanted.
    Delta rules want keys of unit norm. All modes give the same numbers:

    - `"scan"`: token by token, O(t d e) operations in t dependent steps; for single tokens.
    - `"chunk"`: matrix products within chunks, t / chunk_size dependent steps; for training.
    - `"parallel"`: one chunk over everything, O(t^2 (d + e)) operations.

    Args:
        query: what reads, `[b, t, h, d]`; map features beforehand.
        key: where to write, `[b, t, g, d]`, g dividing h; each serves h / g neighbouring heads.
        value: what to write, `[b, t, gv, e]`, gv dividing h.
        decay: natural logarithm of what is kept per step, <= 0 (-inf forgets everything): per
            head `[b, t, h]`, or per key channel `[b, t, h, d]`. None keeps everything.
        beta: strength of the delta rule's write `[b, t, h]`, in [0, 1] (to 2 for negative
            eigenvalues). None writes without looking.
        initial_state: state before the first token, `[b, h, d, e]`; None is zero.
        mode: `"scan"`, `"chunk"`, `"parallel"`, or None: `"scan"` for one
            token, else `"chunk"`.
        chunk_size: tokens per chunk; in `"scan"`, tokens between states kept for the backward
            pass.
        return_state: whether to return the state after the last token as well.
        implementation: `"xla"`, `"pallas"`, or None to choose: the kernel on a TPU (of many,
            inside `jax.shard_map` only), unless `mode` is given. `"pallas"` is a kernel with
            chunks of its own, whatever `chunk_size` is: of 128 on a TPU; of 64 on a Hopper GPU,
            for bfloat16 inputs and d up to 256, chosen by name only since it has not run on one
            yet; elsewhere that for TPUs interpreted, which is slow.

    Returns:
        `[b, t, h, e]` of the inputs' type, or with `return_state` the pair of it and the state
        `[b, h, d, e]`, which is float32 (float64 for float64 inputs), as is all arithmetic.

    Raises:
        ValueError: shapes that do not fit, an unknown mode, or a chunk size below 1.
        NotImplementedError: `implementation="pallas"` cannot do what was asked.

    Reference: arXiv 2006.16236, 2312.06635 (decay), 2406.06484 (delta rule), 2412.06464 (both).

    Example:
        >>> import jax
        >>> kq, kk, kv = jax.random.split(jax.random.key(0), 3)
        >>> q = jax.random.normal(kq, (1, 100, 4, 8))
        >>> k = jax.random.normal(kk, (1, 100, 2, 8))
        >>> v = jax.random.normal(kv, (1, 100, 2, 16))
        >>> out, state = recur(q, k, v, decay=jnp.full((1, 100, 4), -0.1), return_state=True)
        >>> out.shape, state.shape
        ((1, 100, 4, 16), (1, 4, 8, 16))
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b t g d", sizes)
    check_shape("value", value, "b t gv e", sizes)
    if decay is not None:
        check_shape("decay", decay, "b t h d" if jnp.ndim(decay) == 4 else "b t h", sizes)
    if beta is not None:
        check_shape("beta", beta, "b t h", sizes)
    if initial_state is not None:
        check_shape("initial_state", initial_state, "b h d e", sizes)
    length, heads = sizes["t"], sizes["h"]
    for name, axis in (("key", "g"), ("value", "gv")):
        if sizes[axis] == 0 or heads % sizes[axis]:
            raise ValueError(
                f"{name}: expected a number of heads that divides the query's {heads}, "
                f"got {sizes[axis]}"
            )
    if length == 0:
        raise ValueError("query: expected a length of at least 1, got 0")
    check_choice("mode", mode, (None, "scan", "chunk", "parallel"))
    check_choice("implementation", implementation, (None, "xla", "pallas"))
    if chunk_size < 1:
        raise ValueError(f"chunk_size: expected at least 1, got {chunk_size}")
    kernel = implementation == "pallas" or (
        implementation is None and mode is None and length > 1 and kernels_can_run()
    )
    result_type = jnp.result_type(query, key, value)
    reason = _kernel_refusal(mode, result_type, sizes["d"]) if kernel else None
    if implementation == "pallas" and reason is not None:
        raise NotImplementedError(f"implementation='pallas': {reason}")

    work_type = jnp.promote_types(result_type, jnp.float32)
    query, key, value = (x.astype(work_type) for x in (query, key, value))
    key, value = (jnp.repeat(x, heads // x.shape[2], axis=2) for x in (key, value))
    if decay is not None:
        decay = decay.astype(work_type).reshape(*decay.shape[:3], -1)
    if beta is not None:
        beta = beta.astype(work_type)
    if initial_state is None:
        state = jnp.zeros((sizes["b"], heads, sizes["d"], sizes["e"]), work_type)
    else:
        state = initial_state.astype(work_type)

    if kernel and reason is None:
        # Here, for loading Pallas takes its time.
        if platform() == "gpu":
            from jattn.recurrence.pallas_gpu import recur_pallas as recur_gpu

            out, state = recur_gpu(query, key, value, decay, beta, state)
        else:
            from jattn.recurrence.pallas_tpu import recur_pallas

            out, state = recur_pallas(
                query, key, value, decay, beta, state,
                exact=result_type != jnp.bfloat16, interpret=platform() != "tpu",
            )  # fmt: skip
        out = out.astype(result_type)
        return (out, state) if return_state else out
    if mode is None:
        # Chunks win from two tokens on; decoding goes by single ones.
        mode = "scan" if length == 1 else "chunk"
    engine = recur_scan if mode == "scan" else recur_chunked
    size = length if mode == "parallel" else chunk_size
    out, state = engine(query, key, value, decay, beta, state, size)
    out = out.astype(result_type)
    return (out, state) if return_state else out


def _kernel_refusal(mode: str | None, dtype: Any, d: int) -> str | None:
    """Why the kernel of this platform cannot serve, or None."""
    if mode in ("scan", "parallel"):
        return f"the kernel works by chunks, not mode={mode!r}"
    if dtype == jnp.float64:
        return "kernels have no float64"
    if platform() != "gpu":
        return None
    if not is_hopper():
        return "the kernel for GPUs is for the Hopper generation"
    if dtype != jnp.bfloat16:
        return f"the kernel for GPUs multiplies bfloat16 numbers, and the inputs are {dtype}"
    if d > WIDEST:
        return f"the kernel for GPUs holds keys of at most {WIDEST} channels, not {d}"
    return None
