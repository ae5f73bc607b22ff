"""Weights of attention layers of PyTorch as the parameters of softmax attention here."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# What layers call their projections: `nn.MultiheadAttention`, Llama and its kin, Bart, BERT.
NAMES = {
    "query": ("q_proj.weight", "q_proj_weight", "query.weight", "wq.weight", "to_q.weight"),
    "key": ("k_proj.weight", "k_proj_weight", "key.weight", "wk.weight", "to_k.weight"),
    "value": ("v_proj.weight", "v_proj_weight", "value.weight", "wv.weight", "to_v.weight"),
    "output": ("o_proj.weight", "out_proj.weight", "wo.weight", "to_out.0.weight"),
}
FUSED = "in_proj_weight"  # query, key and value of `nn.MultiheadAttention`, one below the other
# Buffers, not weights.
IGNORED = ("rotary_emb.inv_freq", "masked_bias")


def from_torch_attention(
    state_dict: Mapping[str, Any], *, prefix: str = ""
) -> dict[str, Float[Array, "inputs outputs"]]:
    """Parameters for `softmax_attention` from the state dict of an attention layer of PyTorch.

    Heads lie side by side in both, key-value heads in the same order, and rotary positions of
    Llama as Hugging Face has it are those of `rotary=True`. A linear layer of PyTorch computes
    `x W^T`, so matrices are transposed. The layer here has no biases.

    Args:
        state_dict: name to array: tensors of PyTorch, or anything NumPy reads. It holds
            `in_proj_weight` and `out_proj.weight` (`nn.MultiheadAttention`), or a weight each of
            `q_proj`, `k_proj`, `v_proj` and `o_proj` (Llama), or names like these.
        prefix: of the layer's names, where there are others; `"model.layers.3.self_attn."`.

    Returns:
        `{"query", "key", "value", "output"}`, `[inputs, outputs]`, in JAX's default float type.
        Number of heads and of key-value heads are the layer's, and `zoo.make` is told of them.

    Raises:
        ValueError: a weight is not there, there twice, or does not fit; a bias is not zero; or the
            layer has more than that.

    Example:
        >>> import jattn
        >>> weights = {f"self_attn.{n}_proj.weight": np.eye(8) for n in "qkvo"}
        >>> params = from_torch_attention(weights, prefix="self_attn.")
        >>> layer = jattn.zoo.make("softmax_attention", dim=8, heads=2, causal=True)
        >>> layer.apply(params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    layer = {n.removeprefix(prefix): x for n, x in state_dict.items() if n.startswith(prefix)}
    arrays = {name: _numbers(x) for name, x in layer.items() if not name.endswith(IGNORED)}
    found = {ours: [n for n in theirs if n in arrays] for ours, theirs in NAMES.items()}
    weights: dict[str, np.ndarray] = {}
    used = set()
    if FUSED in arrays:
        used.add(FUSED)
        whole = arrays[FUSED]
        if whole.ndim != 2 or whole.shape[0] % 3:
            raise ValueError(f"{FUSED}: expected shape [3 m, m], got {list(whole.shape)}")
        weights = dict(zip(("query", "key", "value"), np.split(whole, 3), strict=True))
    for ours, names in found.items():
        if ours in weights and not names:
            continue
        if ours in weights or len(names) != 1:
            wanted = f"expected one of {', '.join(NAMES[ours])}"
            got = ", ".join(names or sorted(arrays)[:6]) or "nothing"
            raise ValueError(f"state_dict: {wanted} under prefix {prefix!r}, got {got}")
        weights[ours] = arrays[names[0]]
        used.add(names[0])
    for name, array in arrays.items():
        if name in used:
            continue
        if not name.endswith("bias"):
            raise ValueError(f"{name}: softmax_attention has no such parameter")
        if np.any(array):
            raise ValueError(f"{name}: expected zeros, as softmax_attention has no biases")
    return _checked({ours: weights[ours].T for ours in NAMES})


def _checked(weights: dict[str, np.ndarray]) -> dict[str, Float[Array, "inputs outputs"]]:
    for name, array in weights.items():
        if array.ndim != 2:
            raise ValueError(f"{name}: expected a matrix, got shape {list(array.shape[::-1])}")
    dim, inner = weights["query"].shape
    width = weights["key"].shape[1]
    expected = {
        "query": (dim, inner),
        "key": (dim, width),
        "value": (dim, width),
        "output": (inner, dim),
    }
    for name, array in weights.items():
        if array.shape != expected[name]:
            raise ValueError(
                f"{name}: expected weights {list(expected[name][::-1])} by those of the queries, "
                f"got {list(array.shape[::-1])}"
            )
    if inner % width:
        raise ValueError(f"key: expected a divisor of the queries' {inner} channels, got {width}")
    return {name: jnp.asarray(array, jnp.result_type(float)) for name, array in weights.items()}


def _numbers(array: Any) -> np.ndarray:
    """An array of NumPy; PyTorch's tensors may be on a device, in a graph, and bfloat16."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().double().numpy()
    return np.asarray(array)
