"""`recur`: one linear recurrence behind linear attention, decays, gates and delta rules."""

import warnings
from typing import Any, Literal

import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from jattn.checks import check_array, check_choice, check_count, check_flag, check_shape
from jattn.platforms import is_hopper, kernels_can_run, platform
from jattn.recurrence.by_value_channel import by_value_channel
from jattn.recurrence.chunked import recur_chunked
from jattn.recurrence.scan import recur_scan
from jattn.sharding import Layout, along_sequence, layout_of, on_tpu, over_devices, vary_like
from jattn.xla_flags import disable_ynn_fusion

WIDEST = 256  # Channels of a key that registers and shared memory of a GPU can hold.


def recur(
    query: Float[Array, "b t gq d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t gv e"],
    *,
    decay: Float[Array, "b t h"] | Float[Array, "b t h d"] | None = None,
    value_decay: Float[Array, "b t h e"] | None = None,
    beta: Float[Array, "b t h"] | Float[Array, "b t h e"] | None = None,
    erase_key: Float[Array, "b t gr d"] | None = None,
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
    after it has decayed. With an erase key r_t the prediction is the value stored at that one,
    `(a_t S_{t-1})^T r_t`, and the difference is still written to k_t. There is no hidden scale:
    multiply `query` by `d**-0.5` where wanted.
    Delta rules want keys of unit norm. All modes give the same numbers:

    - `"scan"`: token by token, O(t d e) operations in t dependent steps; for single tokens.
    - `"chunk"`: matrix products within chunks, t / chunk_size dependent steps; for training.
    - `"parallel"`: one chunk over everything, O(t^2 (d + e)) operations.

    Args:
        query: what reads, `[b, t, gq, d]`; map features beforehand. There are as many heads h as
            queries or values, whichever are more; each query serves h / gq neighbouring heads.
        key: where to write, `[b, t, g, d]`, g dividing h; each serves h / g neighbouring heads.
        value: what to write, `[b, t, gv, e]`, gv dividing h.
        decay: natural logarithm of what is kept per step, <= 0 (-inf forgets everything): per
            head `[b, t, h]`, or per key channel `[b, t, h, d]`. None keeps everything.
        value_decay: a decay per value channel, `[b, t, h, e]`, besides `decay`.
        beta: strength of the delta rule's write `[b, t, h]`, in [0, 1] (to 2 for negative
            eigenvalues), or one for each value channel `[b, t, h, e]`. None writes without looking.
        erase_key: the key that the delta rule looks up and takes out, `[b, t, gr, d]`, gr
            dividing h; None: the key.

    Rates per value channel make each channel a head of its own: chunks then cost e times as many
    products of keys, and there is no kernel for them.
        initial_state: state before the first token, `[b, h, d, e]`; None is zero.
        mode: `"scan"`, `"chunk"`, `"parallel"`, or None: `"scan"` for one
            token, else `"chunk"`.
        chunk_size: tokens per chunk; in `"scan"`, tokens between states kept for the backward
            pass.
        return_state: whether to return the state after the last token as well.
        implementation: `"xla"`, `"pallas"`, or None to choose: the kernel on a TPU unless
            `mode` is given. `"pallas"` is a kernel with
            chunks of its own, whatever `chunk_size` is: of 128 on a TPU; of 64 on a Hopper GPU,
            for bfloat16 inputs and d up to 256, chosen by name only since it has not run on one
            yet; elsewhere that for TPUs interpreted, which is slow.

    A token that is not finite makes what comes after it NaN, and nothing before it; in a kernel,
    nothing before its chunk.

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
    given = {
        "query": query, "key": key, "value": value, "decay": decay, "beta": beta,
        "erase_key": erase_key,
    }  # fmt: skip
    for name, array in {
        **given, "value_decay": value_decay, "initial_state": initial_state
    }.items():  # fmt: skip
        if array is not None:
            check_array(name, array, "floating")
    check_shape("query", query, "b t gq d", sizes)
    check_shape("key", key, "b t g d", sizes)
    check_shape("value", value, "b t gv e", sizes)
    sizes["h"] = max(sizes["gq"], sizes["gv"])
    if erase_key is not None:
        check_shape("erase_key", erase_key, "b t gr d", sizes)
        if beta is None:
            raise ValueError("erase_key: expected None without beta, which says how much to erase")
    if decay is not None:
        check_shape("decay", decay, "b t h d" if jnp.ndim(decay) == 4 else "b t h", sizes)
    if beta is not None:
        check_shape("beta", beta, "b t h e" if jnp.ndim(beta) == 4 else "b t h", sizes)
    if value_decay is not None:
        check_shape("value_decay", value_decay, "b t h e", sizes)
    if initial_state is not None:
        check_shape("initial_state", initial_state, "b h d e", sizes)
    length, heads = sizes["t"], sizes["h"]
    known = isinstance(length, int)  # It may be a symbol, as in jax.export.
    for name, axis in (("query", "gq"), ("key", "g"), ("value", "gv"), ("erase_key", "gr")):
        if axis in sizes and (sizes[axis] == 0 or heads % sizes[axis]):
            most = "query" if sizes["gq"] == heads else "value"
            raise ValueError(
                f"{name}: expected a number of heads that divides the {most}'s {heads}, "
                f"got {sizes[axis]}"
            )
    check_choice("mode", mode, (None, "scan", "chunk", "parallel"))
    check_choice("implementation", implementation, (None, "xla", "pallas"))
    check_count("chunk_size", chunk_size, 1)
    check_flag("return_state", return_state)
    options: dict[str, Any] = dict(
        mode=mode, chunk_size=chunk_size, return_state=return_state, implementation=implementation
    )
    if value_decay is not None or (beta is not None and beta.ndim == 4):
        own: dict[str, Any] = given
        return by_value_channel(**own, value_decay=value_decay, state=initial_state, **options)
    if sizes["gq"] < heads:
        query = given["query"] = jnp.repeat(query, heads // sizes["gq"], axis=2)
    may_use_kernel = implementation is None and mode is None and known and length > 1
    gr = [sizes["gr"]] if erase_key is not None else []
    layout = layout_of(
        query, key, value, heads=(heads, sizes["g"], sizes["gv"], *gr),
        kernel=implementation == "pallas" or (may_use_kernel and on_tpu(query)),
    )  # fmt: skip
    if layout is not None:
        return _over_devices(layout, given, initial_state, **options)
    kernel = implementation == "pallas" or (may_use_kernel and kernels_can_run())
    # Floats of 8 bits and less promote to nothing; bfloat16 holds them exactly.
    query, key, value = (
        x.astype(jnp.bfloat16) if x.dtype.itemsize < 2 else x for x in (query, key, value)
    )
    result_type = jnp.result_type(query, key, value)
    refused = erase_key is not None
    reason = _kernel_refusal(mode, result_type, sizes["d"], refused) if kernel else None
    if implementation == "pallas" and reason is not None:
        raise NotImplementedError(f"implementation='pallas': {reason}")

    work_type = jnp.promote_types(result_type, jnp.float32)
    query, key, value = (x.astype(work_type) for x in (query, key, value))
    key, value = (jnp.repeat(x, heads // x.shape[2], axis=2) for x in (key, value))
    if erase_key is not None:
        erase_key = jnp.repeat(erase_key.astype(work_type), heads // erase_key.shape[2], axis=2)
    if decay is not None:
        decay = decay.astype(work_type)
        decay = decay if decay.ndim == 4 else decay[..., None]
    if beta is not None:
        beta = beta.astype(work_type)
    if initial_state is None:
        state = jnp.zeros((sizes["b"], heads, sizes["d"], sizes["e"]), work_type)
    else:
        state = initial_state.astype(work_type)

    if known and 0 in (length, sizes["b"], sizes["d"], sizes["e"]):
        out = jnp.zeros((sizes["b"], length, heads, sizes["e"]), result_type)
        return (out, state) if return_state else out
    arrays = (query, key, value, decay, beta, state, erase_key)
    query, key, value, decay, beta, state, erase_key = vary_like(arrays, *arrays)
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
    problem = disable_ynn_fusion() if beta is not None and platform() == "cpu" else None
    if problem is not None:
        warnings.warn(f"recur: {problem}", RuntimeWarning, stacklevel=2)
    if mode is None:
        # Chunks win from two tokens on; decoding goes by single ones.
        mode = "scan" if known and length == 1 else "chunk"
    engine = recur_scan if mode == "scan" else recur_chunked
    if mode == "parallel" and not known:
        raise NotImplementedError("mode='parallel': it needs to know the length")
    size = length if mode == "parallel" else chunk_size
    out, state = engine(query, key, value, decay, beta, state, size, erase_key)
    out = out.astype(result_type)
    return (out, state) if return_state else out


def _over_devices(layout: Layout, given, initial_state, *, return_state: bool, **options):
    """`recur` on each device's share of batch entries and heads."""
    operands = {name: array for name, array in given.items() if array is not None}
    specs = {name: layout.spec(array, 0, 2) for name, array in operands.items()}
    if initial_state is not None:
        operands["initial_state"] = initial_state
        specs["initial_state"] = layout.spec(initial_state, 0, 1)
    batch, heads = layout.batch or None, layout.heads or None
    out_specs = PartitionSpec(batch, None, heads, None)
    if return_state:
        out_specs = (out_specs, PartitionSpec(batch, heads, None, None))
    run = lambda share: recur(**share, return_state=return_state, **options)
    results = over_devices(layout, run, operands, specs, out_specs)
    out = along_sequence(layout, results[0] if return_state else results, given["query"])
    return (out, results[1]) if return_state else out


def _kernel_refusal(mode: str | None, dtype: Any, d: int, erases: bool) -> str | None:
    """Why the kernel of this platform cannot serve, or None."""
    if erases:
        return "kernels erase at the key they write to; leave out erase_key or implementation"
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
