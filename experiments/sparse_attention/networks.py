"""Small networks whose attention is any function of their heads' queries, keys and values."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jattn.attention.positions import rotary
from jattn.mechanisms.layers.affine import mlp, mlp_init, norm, norm_init
from jattn.mechanisms.layers.heads import merge_heads, project_output, qkv, qkvo_init

# (layer, query [b, t, h, d], key, value) -> [b, t, h, d]
Attention = Callable[[int, jax.Array, jax.Array, jax.Array], jax.Array]


class Sizes(NamedTuple):
    """Sizes of a decoder."""

    vocabulary: int
    dim: int
    heads: int
    layers: int


def sizes_of(settings) -> Sizes:
    """Those of a config."""
    return Sizes(*(settings[field] for field in Sizes._fields))


def of_seed(params: Any, seed: int) -> Any:
    """Parameters of one of the seeds that `fit` trained side by side."""
    return jax.tree.map(lambda leaf: leaf[seed], params)


def layers_init(key: jax.Array, dim: int, heads: int, layers: int) -> list[dict[str, Any]]:
    """Draws layers of attention and an MLP."""
    keys = jax.random.split(key, (layers, 2))
    return [
        {
            "norm": norm_init(dim),
            "attention": qkvo_init(of_attention, dim, heads),
            "mlp_norm": norm_init(dim),
            "mlp": mlp_init(of_mlp, dim, 4 * dim),
        }
        for of_attention, of_mlp in keys
    ]


def run_layers(layers: Sequence[Any], x: jax.Array, heads: int, attention: Attention) -> jax.Array:
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`, layer after layer."""
    for index, layer in enumerate(layers):
        normed = norm(layer["norm"], x)
        out = attention(index, *qkv(layer["attention"], normed, normed, heads, heads))
        x = x + project_output(layer["attention"], merge_heads(out))
        x = x + mlp(layer["mlp"], norm(layer["mlp_norm"], x))
    return x


def decoder_init(key: jax.Array, sizes: Sizes) -> dict[str, Any]:
    """Draws the parameters of `decoder`."""
    vocabulary, dim, heads, layers = sizes
    of_embedding, of_output, of_layers = jax.random.split(key, 3)
    return {
        "embedding": jax.random.normal(of_embedding, (vocabulary, dim)),
        "layers": layers_init(of_layers, dim, heads, layers),
        "norm": norm_init(dim),
        "output": jax.random.normal(of_output, (dim, vocabulary)) / dim**0.5,
    }


def decoder(params: Any, tokens: jax.Array, sizes: Sizes, attention: Attention) -> jax.Array:
    """Logits `[b, t, vocabulary]`; queries and keys that `attention` gets are rotated."""
    rotated = lambda index, q, k, v: attention(index, rotary(q), rotary(k), v)
    x = run_layers(params["layers"], params["embedding"][tokens], sizes.heads, rotated)
    return norm(params["norm"], x) @ params["output"]
