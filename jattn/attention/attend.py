"""The softmax-like engine: score -> bias -> score_mod -> mask -> normalise -> aggregate."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention.attention_args import AttentionArgs, bind
from jattn.attention.blocks import Blocks, check_blocks, table_blocks
from jattn.attention.blockwise import blockwise
from jattn.attention.devices import attend_over_devices
from jattn.attention.masks import Mask, MaskLike, band
from jattn.attention.normalizers import Normalizer
from jattn.attention.reference import reference
from jattn.attention.scores import ScoreMod
from jattn.checks import check_choice
from jattn.platforms import is_hopper, kernels_can_run, platform
from jattn.sharding import Layout, layout_of, on_tpu

IMPLEMENTATIONS = ("reference", "blockwise", "pallas", "cudnn")

# Below this many scores a head, or up to this few queries, all scores at once are no slower than
# blocks on a CPU, and their memory hardly matters.
DENSE_SCORES = 512 * 512
DENSE_QUERIES = 64


def attend(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s gk d"],
    value: Float[Array, "b s gv e"],
    *,
    mask: MaskLike | None = None,
    bias: Array | float | None = None,
    score_mod: ScoreMod | None = None,
    normalizer: str | Normalizer = "softmax",
    sink: Array | float | None = None,
    scale: Array | float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    return_lse: bool = False,
    return_weights: bool = False,
    implementation: str | Blocks | None = None,
) -> Any:  # One array or a tuple, by `return_lse` and `return_weights`: see Returns.
    """Attention: every query takes a weighted sum of values, weighted by scores of the keys.

    In this order, for query i, key j and each head:

        score_ij  = scale * <q_i, k_j>
        score_ij += bias_ij
        score_ij  = score_mod(score_ij, batch, head, i, j)
        weight_ij = f(score_ij - shift_ij) where mask_ij, else 0      f, shift: the normalizer
        total_i   = sum_j weight_ij (+ f(sink_i))
        out_i     = sum_j weight_ij v_j (/ total_i)                   divided if the normalizer does

    For softmax, f = exp. A bias of -inf hides a key from a query, as a mask does, whatever the
    modification makes of it; so does a modification that returns -inf. A query without any key
    gives zeros, lse -inf and no gradient. NaN or infinity in a key or value that the mask hides, or
    in a query that it leaves without keys, reaches neither values nor gradients; a query that
    attends to it becomes NaN (in the kernel, an infinite key may give a weight of 0 instead).
    Dropout sets weights to 0 after the division, and divides the others by 1 - rate.
    Head i of the queries meets head `i * gk // h` of the keys and
    head `i * gv // h` of the values.

    Args:
        query: `[b, t, h, d]`, any float dtype. Scores and sums are float32, or float64 if any
            of the three arrays is; floats of 8 bits or less are read as bfloat16.
        key: `[b, s, gk, d]`, gk divides h.
        value: `[b, s, gv, e]`, gv divides h.
        mask: who may attend to whom; a `jattn.masks.Mask`, a bool array broadcastable to
            `[b, h, t, s]`, True = may attend, or a function `(batch, head, q_index, k_index) ->
            bool` (see `jattn.masks.from_function`). Default: everyone to everyone.
        bias: added to scores, broadcastable to `[b, h, t, s]`, differentiable. An axis of size 1 is
            never broadcast: `[b, h, 1, s]` and `[b, h, t, 1]` stay as small as they are.
        score_mod: `(score, batch, head, q_index, k_index) -> score`, written for scalars; see
            `jattn.attention.scores`. Arrays it closes over may be differentiated.
        normalizer: "softmax", "sigmoid", "softplus_l1", "relu", or a `Normalizer`.
        sink: an extra logit for each query that joins the sum and has no value: a number, one
            a head `[h]`, or `[b, t, h]`; differentiable. 0.0 is "softmax off by one". Neither
            `bias` nor `score_mod` touch it.
        scale: default d^-0.5.
        dropout_rate: probability of a weight to be dropped, in [0, 1); 0 drops none.
        dropout_key: decides which; the same key drops the same weights on every backend.
        return_lse: also return the log of total_i, sink included, for normalizers that divide.
        return_weights: also return the weights (divided, sink left out); "reference" only.
        implementation: "reference" (dense; any order and mode of differentiation), "blockwise"
            (memory grows with t + s; any mode and order too, with more memory beyond the first
            gradient), "pallas" (the kernel for TPUs, or for Hopper GPUs; elsewhere the TPU's,
            interpreted, which is slow; first gradients only), "cudnn", or None to choose; see
            `explain`. A `Blocks` is "pallas" on TPUs with tiles of those sizes; otherwise they
            come from a table of chips and shapes.

    Returns:
        out `[b, t, h, e]` in query's dtype; then, if asked for, lse `[b, t, h]` in float32
        (float64); then, if asked for, weights `[b, h, t, s]`.

    Raises:
        ValueError: an argument does not fit; one line says which, what was expected, what came.
        NotImplementedError: the named implementation cannot do what was asked.

    Reference:
        arXiv 1706.03762; in blocks: arXiv 2205.14135; sinks: arXiv 2309.17453.

    Example:
        >>> import jattn
        >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 16, 4, 8))
        >>> out, lse = attend(q, k, v, mask=jattn.masks.causal(), return_lse=True)
        >>> out.shape, lse.shape
        ((1, 16, 4, 8), (1, 16, 4))
    """
    args = bind(
        query, key, value, mask=mask, bias=bias, score_mod=score_mod, normalizer=normalizer,
        sink=sink, scale=scale, dropout_rate=dropout_rate, dropout_key=dropout_key,
        return_lse=return_lse, return_weights=return_weights,
    )  # fmt: skip
    layout = _layout(args, implementation)
    run = functools.partial(_run, implementation=implementation)
    out, *more = run(args) if layout is None else attend_over_devices(args, layout, run)
    return (out, *more) if more else out


def _layout(args: AttentionArgs, implementation: str | Blocks | None) -> Layout | None:
    """How the arrays are spread over devices; None where the program can be left to XLA."""
    check_choice("implementation", _name(implementation), (None, *IMPLEMENTATIONS))
    arrays = (args.query, args.key, args.value)
    named = isinstance(implementation, Blocks) or implementation == "pallas"
    kernel = named or (implementation is None and on_tpu(args.query))
    return layout_of(*arrays, heads=tuple(x.shape[2] for x in arrays), kernel=kernel)


def _run(args: AttentionArgs, implementation: str | Blocks | None) -> tuple[Any, ...]:
    """The results asked for, on one device or left to XLA to divide."""
    selection = _select(args, implementation, kernels_can_run())
    weights = None
    if selection.chosen is None:
        name = _name(implementation)
        reason = dict(selection.refused)[str(name)]
        raise NotImplementedError(f"implementation={name!r}: {reason}")
    if selection.chosen == "reference":
        out, lse, weights = reference(args)
    elif selection.chosen == "pallas":
        out, lse = _pallas(args, selection.blocks)
    else:
        out, lse = {"blockwise": blockwise, "cudnn": _cudnn}[selection.chosen](args)
    more = ((lse, args.return_lse), (weights, args.return_weights))
    return (out, *(x for x, asked in more if asked))


class Selection(NamedTuple):
    """Which implementation `attend` takes, and why not the others. Printable.

    Attributes:
        chosen: its name; None where the one asked for cannot do it.
        refused: pairs of a name and the reason.
        blocks: sizes of tiles, where the TPU kernels are chosen.
        blocks_from: where these sizes come from.
        layout: how the arrays are spread over devices, where each works on its share.
    """

    chosen: str | None
    refused: tuple[tuple[str, str], ...]
    blocks: Blocks | None = None
    blocks_from: str | None = None
    layout: Layout | None = None

    def __str__(self) -> str:
        tiles = [] if self.blocks is None else [f"{self.blocks} from {self.blocks_from}"]
        refused = [f"not {name}: {reason}" for name, reason in self.refused]
        once = "derivatives: first ones in reverse mode; others have all modes and orders"
        modes = [once] if self.chosen in ("pallas", "cudnn") else []
        spread = [] if self.layout is None else [str(self.layout)]
        return "\n".join([f"chosen: {self.chosen}", *tiles, *spread, *modes, *refused])


def explain(query: Array, key: Array, value: Array, **options) -> Selection:
    """Says which implementation `attend` would take for the same arguments; computes nothing.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, gk, d]`.
        value: `[b, s, gv, e]`.
        **options: those of `attend`.

    Returns:
        A `Selection`.

    Raises:
        ValueError: as `attend`.

    Example:
        >>> x = jnp.ones((1, 8, 2, 4))
        >>> explain(x, x, x).chosen
        'reference'
    """
    implementation = options.pop("implementation", None)
    args = bind(query, key, value, **options)
    layout = _layout(args, implementation)
    # On its share of a spread array each device runs what it would run alone.
    kernels = kernels_can_run() if layout is None else on_tpu(args.query)
    selection = _select(args, implementation, kernels)
    return selection if layout is None else selection._replace(layout=layout)


def _select(args: AttentionArgs, implementation: str | Blocks | None, kernels: bool) -> Selection:
    given = implementation if isinstance(implementation, Blocks) else None
    if given is not None:
        check_blocks(given)
    name = _name(implementation)
    check_choice("implementation", name, (None, *IMPLEMENTATIONS))
    cannot = {
        "blockwise": "it never holds the weights (return_weights)" if args.return_weights else None,
        "pallas": _pallas_unsupported(args, given) if name == "pallas" or kernels else None,
        "cudnn": _cudnn_unsupported(args),
    }
    sizes = (*args.query.shape, *args.key.shape, *args.value.shape)
    symbolic = not all(isinstance(size, int) for size in sizes)  # as in jax.export
    if symbolic:
        cannot |= dict.fromkeys(("blockwise", "pallas", "cudnn"), "it needs to know all lengths")
    if 0 in sizes:
        chosen = "reference"  # There is nothing to work on in blocks.
    elif name is None:
        t, s = args.query.shape[1], args.key.shape[1]
        short = symbolic or t <= DENSE_QUERIES or t * s < DENSE_SCORES
        if short or cannot["blockwise"]:
            chosen = "reference"
        elif kernels and not cannot["pallas"]:
            chosen = "pallas"
        elif is_hopper() and args.mask is None and args.bias is None and not cannot["cudnn"]:
            chosen = "cudnn"
        else:
            chosen = "blockwise"
        if chosen not in ("reference", "pallas"):
            cannot["pallas"] = cannot["pallas"] or (
                "taken only by name on a GPU, where it has yet to be measured"
                if platform() == "gpu"
                else "it needs a TPU (elsewhere it is interpreted)"
            )
        if chosen != "cudnn":  # It lets NaN through a mask, and rounds a bias.
            cannot["cudnn"] = cannot["cudnn"] or (
                "taken only by name, except on Hopper without mask and bias"
            )
    else:
        chosen = None if cannot.get(name) else name
    preferred = f"{chosen} is preferred at this size" if name is None else "not asked for"
    refused = tuple((n, cannot.get(n) or preferred) for n in IMPLEMENTATIONS if n != chosen)
    if chosen != "pallas" or platform() == "gpu":
        return Selection(chosen, refused)
    return Selection(
        chosen, refused, *(table_blocks(args) if given is None else (given, "the caller"))
    )


def _name(implementation: str | Blocks | None) -> str | None:
    return "pallas" if isinstance(implementation, Blocks) else implementation


def _cudnn_unsupported(args: AttentionArgs) -> str | None:
    """Why cuDNN's fused attention cannot serve, or None."""
    b, t, h, d = args.query.shape
    e = args.value.shape[3]
    limits = {
        "it needs a GPU": platform() != "gpu",
        "it needs float16 or bfloat16 inputs": not all(
            x.dtype == args.query.dtype and x.dtype in (jnp.float16, jnp.bfloat16)
            for x in (args.query, args.key, args.value)
        ),
        "it has softmax only": args.normalizer.name != "softmax",
        "it has no score_mod": args.score_function is not None,
        "it has no dropout": args.dropout is not None,
        "it has no sink": args.sink is not None,
        "its lse is not differentiable": args.return_lse,
        "it does not return weights": args.return_weights,
        "its masks are none, causal() and sliding_window(n), with t = s": args.mask is not None
        and not (_cudnn_window(args.mask) and t == args.key.shape[1]),
        "it needs as many key heads as value heads": args.key.shape[2] != args.value.shape[2],
        "it needs d = e, a multiple of 8 and at most 128": d != e or d % 8 != 0 or d > 128,
        "its scale is a Python number": isinstance(args.scale, jax.Array),
        "its bias is a full [b, h, t, s]": args.bias is not None
        and args.bias.shape != (b, h, t, args.key.shape[1]),
    }
    return "; ".join(reason for reason, holds in limits.items() if holds) or None


def _cudnn_window(mask: Mask) -> dict[str, Any]:
    """The mask as arguments of `jax.nn.dot_product_attention`; empty where it cannot say it."""
    low, high = band(mask) or (None, None)
    if high != 0 or (low is not None and low > 0):
        return {}
    return {"is_causal": True, "local_window_size": None if low is None else (-low, 0)}


def _pallas_unsupported(args: AttentionArgs, blocks: Blocks | None) -> str | None:
    """Why no Pallas kernel can serve, or None."""
    # Either import loads Pallas, which takes its time.
    if platform() == "gpu":
        if not is_hopper():
            return "its GPU kernels are for Hopper (H100, H200)"
        if blocks is not None:
            return "the GPU kernels choose their own blocks"
        from jattn.attention.pallas_gpu import unsupported_reason
    else:
        from jattn.attention.pallas_tpu import unsupported_reason
    return unsupported_reason(args)


def _pallas(args: AttentionArgs, blocks: Blocks | None) -> tuple[Array, Array | None]:
    if blocks is None:
        from jattn.attention.pallas_gpu import pallas_gpu

        return pallas_gpu(args)
    from jattn.attention.pallas_tpu import pallas_tpu

    # Elsewhere than on a TPU the kernel is interpreted: slow, for checks.
    return pallas_tpu(args, blocks, interpret=platform() != "tpu")


def _cudnn(args: AttentionArgs) -> tuple[Array, None]:
    out = jax.nn.dot_product_attention(
        args.query,
        args.key,
        args.value,
        bias=None if args.bias is None else args.bias.astype(args.query.dtype),
        **({} if args.mask is None else _cudnn_window(args.mask)),
        scale=float(args.scale),
        implementation="cudnn",
    )
    return out, None
