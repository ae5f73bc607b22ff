"""Llama: a decoder of grouped heads, rotary positions and gated MLPs (arXiv 2302.13971).

    x += W_output attend(rotary(W_query n(x)), rotary(W_key n(x)), W_value n(x))
    x += W_down (silu(W_gate n(x)) * W_up n(x))

with n an RMS norm of its own each time. Layers lie stacked in one array a weight and are scanned,
so a model of any depth is one layer to the compiler.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend, masks
from jattn.attention.positions import rotary
from jattn.checks import (
    check_array,
    check_choice,
    check_count,
    check_indices,
    check_number,
    check_shape,
)
from jattn.mechanisms.layers.heads import merge_heads, split_heads
from jattn.mechanisms.layers.key_value_cache import KeyValueCache
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import rms_norm
from jattn.nn.taps import Taps

DTYPES = ("float32", "bfloat16")
Weights = dict[str, Any]
# What a layer is watched by, from its index and a pytree of edits.
Watch = Callable[[Any, Any], Taps]


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Configuration of a `Llama`.

    Attributes:
        vocab_size: number of tokens.
        dim: model dimension m.
        layers: number of layers.
        heads: query heads h.
        kv_heads: key-value heads g, a divisor of h.
        hidden: inner dimension of the MLPs.
        head_dim: d, even; default m / h.
        rotary_base: the longest wavelength of positions is about 2 pi times it.
        eps: of the norms.
        max_length: tokens that it was trained on; nothing is refused by it.
        tie_embeddings: read out with the transposed token embedding.
        dtype: of weights and activations; norms are computed in float32, and logits are that.

    Raises:
        ValueError: a value that does not fit.

    Example:
        >>> LlamaConfig(vocab_size=50, dim=8, layers=1, heads=4, kv_heads=3, hidden=16)
        Traceback (most recent call last):
        ...
        ValueError: kv_heads: expected a divisor of heads=4, got 3
    """

    vocab_size: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    head_dim: int | None = None
    rotary_base: float = 10000.0
    eps: float = 1e-5
    max_length: int = 2048
    tie_embeddings: bool = True
    dtype: str = "float32"

    def __post_init__(self):
        for field in ("vocab_size", "dim", "layers", "heads", "kv_heads", "hidden", "max_length"):
            check_count(field, getattr(self, field))
        if self.heads % self.kv_heads:
            raise ValueError(
                f"kv_heads: expected a divisor of heads={self.heads}, got {self.kv_heads}"
            )
        if self.head_dim is None and self.dim % self.heads:
            raise ValueError(f"heads: expected a divisor of dim={self.dim}, got {self.heads}")
        check_count("head_dim", self.width)
        if self.width % 2:
            raise ValueError(f"head_dim: rotary positions need an even one, got {self.width}")
        check_number("rotary_base", self.rotary_base, above=0)
        check_number("eps", self.eps, above=0)
        check_choice("dtype", self.dtype, DTYPES)

    @property
    def width(self) -> int:
        """Size of a head."""
        return self.dim // self.heads if self.head_dim is None else self.head_dim

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a layer's weights: norms `[m]`, and linear maps `[inputs, outputs]`."""
        query, key = self.heads * self.width, self.kv_heads * self.width
        return {
            "attention_norm": (self.dim,),
            "query": (self.dim, query),
            "key": (self.dim, key),
            "value": (self.dim, key),
            "output": (query, self.dim),
            "mlp_norm": (self.dim,),
            "gate": (self.dim, self.hidden),
            "up": (self.dim, self.hidden),
            "down": (self.hidden, self.dim),
        }


def llama_init(key: jax.Array, config: LlamaConfig) -> Weights:
    """Initial weights: ones in norms, uniform linear maps, N(0, 1/m) embeddings.

    Returns:
        `{"embed": [V, m], "layers": {name: [L, ...]}, "norm": [m]}`, and `"head": [m, V]` where it
        is not tied.
    """
    table, head, *keys = jax.random.split(key, 2 + len(config.layer_shapes()))
    dtype, depth = jnp.dtype(config.dtype), config.layers
    layers = {}
    for own, (name, shape) in zip(keys, config.layer_shapes().items(), strict=True):
        if len(shape) == 1:
            layers[name] = jnp.ones((depth, *shape), jnp.float32)
        else:
            make = jax.vmap(lambda k, shape=shape: linear_init(k, *shape))
            layers[name] = make(jax.random.split(own, depth)).astype(dtype)
    spread = config.dim**-0.5
    embed = spread * jax.random.normal(table, (config.vocab_size, config.dim))
    weights = {
        "embed": embed.astype(dtype),
        "layers": layers,
        "norm": jnp.ones(config.dim, jnp.float32),
    }
    if not config.tie_embeddings:
        weights["head"] = linear_init(head, config.dim, config.vocab_size).astype(dtype)
    return weights


def llama_layer(
    config: LlamaConfig,
    weights: Weights,
    x: Float[Array, "b t m"],
    positions: Int[Array, "b t"],
    mix: Callable[[Array, Array, Array], tuple[Array, Any]],
    taps: Taps,
) -> tuple[Float[Array, "b t m"], Any]:
    """One layer, and whatever `mix` of its queries, keys and values gives besides what heads read.

    Args:
        config: the model's.
        weights: the layer's.
        x: the residual stream.
        positions: of its tokens.
        mix: `(query, key, value) -> (z, more)`; queries and keys are rotated.
        taps: called at every site.
    """
    x = taps("resid_pre", x)
    normed = rms_norm(x, weights["attention_norm"], eps=config.eps)
    heads = lambda name, count: split_heads(linear(normed, weights[name]), count)
    query = taps("q_pre", heads("query", config.heads))
    key = taps("k_pre", heads("key", config.kv_heads))
    query = taps("q", rotary(query, positions, base=config.rotary_base))
    key = taps("k", rotary(key, positions, base=config.rotary_base))
    value = taps("v", heads("value", config.kv_heads))
    z, more = mix(query, key, value)
    out = linear(merge_heads(taps("z", z)), weights["output"])
    x = taps("resid_mid", x + taps("attn_out", out))
    normed = rms_norm(x, weights["mlp_norm"], eps=config.eps)
    inner = jax.nn.silu(linear(normed, weights["gate"])) * linear(normed, weights["up"])
    return taps("resid_post", x + taps("mlp_out", linear(inner, weights["down"]))), more


def embedded(weights: Weights, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch m"]:
    """Embeddings of tokens; NaN where there is none, for under `jit` that cannot be refused."""
    table = weights["embed"]
    inside = (tokens >= 0) & (tokens < len(table))
    return jnp.where(inside[..., None], table[jnp.where(inside, tokens, 0)], jnp.nan)


def read_out(
    config: LlamaConfig, weights: Weights, x: Float[Array, "*batch m"]
) -> Float[Array, "*batch vocab"]:
    """Logits of a residual stream, float32 at least."""
    x = rms_norm(x, weights["norm"], eps=config.eps)
    table = weights["embed"].T if config.tie_embeddings else weights["head"]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.matmul(x, table, preferred_element_type=wide)


@functools.partial(jax.jit, static_argnames=("config", "watch"))
def _forward(config, weights, tokens, mask, positions, at, watch, edits):
    visible: Any = masks.causal()
    if mask is not None:
        visible = visible & masks.padding(mask)
    if positions is None:
        count = jnp.arange(tokens.shape[1]) if mask is None else jnp.cumsum(mask, axis=1) - 1
        positions = jnp.broadcast_to(jnp.maximum(count, 0), tokens.shape)

    def body(x, given):
        index, layer = given
        taps = Taps() if watch is None else watch(index, edits)
        mix = lambda q, k, v: (taps.attend(q, k, v, visible), None)
        x, _ = llama_layer(config, layer, x, positions, mix, taps)
        return x, taps.records

    layers = (jnp.arange(config.layers), weights["layers"])
    x, records = lax.scan(body, embedded(weights, tokens), layers)
    if at is not None:
        x = x[jnp.arange(len(x)), at]
    return read_out(config, weights, x), records


class Llama(nnx.Module):
    """A Llama decoder; `Llama.from_gguf("smollm2-135m")` is a trained one.

    Args:
        config: what it is made of.
        rngs: where initial weights come from (stream `params`); or
        weights: those that it has, as `llama_init` gives them.

    Example:
        >>> config = LlamaConfig(vocab_size=50, dim=16, layers=2, heads=4, kv_heads=2, hidden=32)
        >>> model = Llama(config, rngs=nnx.Rngs(0))
        >>> model(jnp.zeros((1, 7), int)).shape
        (1, 7, 50)
    """

    def __init__(
        self,
        config: LlamaConfig,
        *,
        rngs: nnx.Rngs | None = None,
        weights: Weights | None = None,
    ):
        if weights is None:
            if rngs is None:
                raise ValueError("rngs: expected nnx.Rngs, or weights, got neither")
            weights = llama_init(rngs.params(), config)
        self.config = config
        self.weights = nnx.data(jax.tree.map(nnx.Param, weights))

    @classmethod
    def from_gguf(cls, path: str | Path, *, dtype: str = "float32") -> "Llama":
        """A model out of a GGUF file of architecture `llama`; see `llama_weights.from_gguf`."""
        from jattn.nn.llama_weights import from_gguf

        config, weights = from_gguf(path, dtype=dtype)
        return cls(config, weights=weights)

    @classmethod
    def from_safetensors(cls, folder: str | Path, *, dtype: str = "float32") -> "Llama":
        """A model out of a local folder of Hugging Face; see `llama_weights.from_safetensors`."""
        from jattn.nn.llama_weights import from_safetensors

        config, weights = from_safetensors(folder, dtype=dtype)
        return cls(config, weights=weights)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.config.vocab_size

    def arrays(self) -> Weights:
        """The weights as a plain pytree."""
        leaf = lambda node: isinstance(node, nnx.Variable)
        return jax.tree.map(lambda variable: variable[...], self.weights, is_leaf=leaf)

    def __call__(
        self,
        tokens: Int[Array, "b t"],
        *,
        mask: Bool[Array, "b t"] | None = None,
        positions: Int[Array, "b t"] | None = None,
    ) -> Float[Array, "b t vocab"]:
        """Logits at every token, `[b, t, vocab]`, float32.

        Args:
            tokens: `[b, t]`; under `jit`, where values are not known, one that is not in the
                vocabulary becomes NaN.
            mask: True = a real token, False = padding, on any side; outputs there mean nothing.
            positions: default counts each row's real tokens from 0, so padding changes nothing.

        Raises:
            ValueError: a shape or type that does not fit, or a token that there is not.
        """
        return self.watched(tokens, mask=mask, positions=positions)[0]

    def watched(
        self,
        tokens: Int[Array, "b t"],
        *,
        mask: Bool[Array, "b t"] | None = None,
        positions: Int[Array, "b t"] | None = None,
        at: Int[Array, " b"] | None = None,
        watch: Watch | None = None,
        edits: Any = (),
    ) -> tuple[Float[Array, "b ... vocab"], dict[str, Array]]:
        """Logits, and the records of the taps that watch each layer, stacked `[L, ...]`.

        Args:
            tokens, mask, positions: as for the model.
            at: one token of each text, of which alone logits are computed, `[b, vocab]`.
            watch: `(layer, edits) -> Taps`, hashable; compiled once for each that is different.
            edits: any pytree, handed to it.
        """
        sizes: dict[str, int] = {}
        check_array("tokens", tokens, "integer")
        check_shape("tokens", tokens, "b t", sizes)
        check_indices("tokens", tokens, self.vocab_size)
        if mask is not None:
            check_array("mask", mask, "bool")
            check_shape("mask", mask, "b t", sizes)
        if positions is not None:
            check_shape("positions", positions, "b t", sizes)
        if at is not None:
            check_shape("at", at, "b", sizes)
            check_indices("at", at, tokens.shape[1])
        return _forward(self.config, self.arrays(), tokens, mask, positions, at, watch, edits)

    def init_state(self, batch_size: int, max_length: int) -> KeyValueCache:
        """Empty caches of all layers, each leaf `[L, ...]`, for up to `max_length` tokens."""
        check_count("batch_size", batch_size, least=0)
        check_count("max_length", max_length)
        config = self.config
        shape = (config.layers, batch_size, max_length, config.kv_heads, config.width)
        empty = jnp.zeros(shape, config.dtype)
        return KeyValueCache(empty, empty, jnp.zeros(config.layers, jnp.int32))

    def prefill(
        self,
        tokens: Int[Array, "b t"],
        state: KeyValueCache,
        length: Int[Array, ""] | int | None = None,
    ) -> tuple[Float[Array, "b vocab"], KeyValueCache]:
        """Logits after the first tokens of all, read in one pass, and the state behind them.

        Args:
            tokens: `[b, t]`.
            state: an empty one, as `init_state` gives it.
            length: how many of the t tokens are real, in all rows; the others are padding behind
                them. Default all.
        """
        length = tokens.shape[1] if length is None else length
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)

        def read(cache, query, key, value):
            return attend(query, key, value, mask=masks.causal()), cache.fill(key, value, length)

        x, state = self._through_caches(tokens, state, positions, read)
        last = lax.dynamic_index_in_dim(x, length - 1, 1, keepdims=False)
        return read_out(self.config, self.arrays(), last), state

    def step(
        self, tokens: Int[Array, " b"], state: KeyValueCache
    ) -> tuple[Float[Array, "b vocab"], KeyValueCache]:
        """Logits after one more token `[b]`, and the next state; NaN where there is no room."""
        positions = jnp.broadcast_to(state.position[0], (tokens.shape[0], 1))

        def read(cache, query, key, value):
            cache = cache.append(key[:, 0], value[:, 0])
            return attend(query, cache.key, cache.value, mask=cache.filled()), cache

        x, state = self._through_caches(tokens[:, None], state, positions, read)
        return read_out(self.config, self.arrays(), x[:, 0]), state

    def _through_caches(self, tokens, state, positions, read):
        weights = self.arrays()

        def body(x, given):
            layer, cache = given
            mix = lambda q, k, v: read(cache, q, k, v)
            return llama_layer(self.config, layer, x, positions, mix, Taps())

        return lax.scan(body, embedded(weights, tokens), (weights["layers"], state))
