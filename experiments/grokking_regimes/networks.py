"""The networks, as pure functions: pre-norm blocks with any mixer of the zoo, and a perceptron.

The paper leaves initialisation and positions open. Here embeddings are normal of deviation 0.02,
positions are learned, linear maps are uniform up to one over the root of their inputs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import jattn
from jattn.attention import attend, masks
from jattn.lens.heads import head_participation, head_statistics
from jattn.mechanisms.layers.heads import qkv
from jattn.mechanisms.layers.norms import rms_norm

MLP = "mlp"
ATTENTION = "softmax_attention"
TOKENS = 3  # a b =


class Network(NamedTuple):
    """A network.

    Attributes:
        init: `(key) -> params`.
        logits: `(params, tokens [b, 3]) -> [b, p + 1]`, of the answer.
        maps: `(params, tokens) -> [l, b, h, 3, 3]`, attention; None where there is none.
        of_heads: `(params, n) -> ` a tree like the params, whether a number belongs to the first
            n heads of a layer.
    """

    init: Callable[[jax.Array], Any]
    logits: Callable[[Any, jax.Array], jax.Array]
    maps: Callable[[Any, jax.Array], jax.Array] | None = None
    of_heads: Callable[[Any, int], Any] | None = None


def network(config, name: str, heads: int) -> Network:
    """A network by the name of its mixer, or `"mlp"`."""
    return _perceptron(config) if name == MLP else _decoder(config, name, heads)


def diagnostics(maps: Float[Array, "l b h t t"]) -> dict[str, Float[Array, ""]]:
    """What attention maps alone say of their heads."""
    found = head_statistics(maps)
    return {
        "similarity": found.mean_similarity,
        "entropy_std": found.entropy_std,
        "participation": head_participation(maps),
        "spectral_gap": found.spectral_gap,
    }


def _linear(key: jax.Array, into: int, out: int) -> Float[Array, "i o"]:
    return jax.random.uniform(key, (into, out), minval=-1.0, maxval=1.0) * into**-0.5


def _embedding(key: jax.Array, rows: int, dim: int) -> Float[Array, "n m"]:
    return 0.02 * jax.random.normal(key, (rows, dim))


def _decoder(config, name: str, heads: int) -> Network:
    dim, vocabulary = config.dim, config.modulus + 1
    mixer = jattn.zoo.make(name, dim=dim, heads=heads, causal=True)

    def init(key):
        of_words, of_places, of_head, of_layers = jax.random.split(key, 4)

        def layer(key):
            of_mixer, up, down = jax.random.split(key, 3)
            return {
                "mixer": mixer.init(of_mixer),
                "up": _linear(up, dim, 4 * dim),
                "down": _linear(down, 4 * dim, dim),
                "norms": jnp.ones((2, dim)),
            }

        return {
            "words": _embedding(of_words, vocabulary, dim),
            "places": _embedding(of_places, TOKENS, dim),
            "layers": [layer(k) for k in jax.random.split(of_layers, config.layers)],
            "norm": jnp.ones(dim),
            "head": _linear(of_head, dim, vocabulary),
        }

    def walk(params, tokens: Int[Array, "b 3"]):
        """Gives what enters each layer's mixer, and what leaves the last layer at the last token.

        Nothing reads the last layer at other tokens, so its MLP is left out there.
        """
        x, entering = params["words"][tokens] + params["places"], []
        for number, layer in enumerate(params["layers"]):
            entering.append(rms_norm(x, layer["norms"][0]))
            x = x + mixer.apply(layer["mixer"], entering[-1])
            if number == config.layers - 1:
                x = x[:, -1]
            hidden = jax.nn.gelu(rms_norm(x, layer["norms"][1]) @ layer["up"])
            x = x + hidden @ layer["down"]
        return entering, x

    def logits(params, tokens):
        return rms_norm(walk(params, tokens)[1], params["norm"]) @ params["head"]

    def maps(params, tokens):
        found = []
        for x, layer in zip(walk(params, tokens)[0], params["layers"], strict=True):
            query, key, value = qkv(layer["mixer"], x, x, heads, heads)
            _, weights = attend(query, key, value, mask=masks.causal(), return_weights=True)
            found.append(weights)
        return jnp.stack(found)

    def of_heads(params, chosen):
        width = chosen * (dim // heads)

        def of_layer(layer):
            mask = {name: jnp.zeros(w.shape, bool) for name, w in layer["mixer"].items()}
            for name in ("query", "key", "value"):
                mask[name] = mask[name].at[:, :width].set(True)
            mask["output"] = mask["output"].at[:width].set(True)
            return jax.tree.map(lambda w: jnp.zeros(w.shape, bool), layer) | {"mixer": mask}

        none = jax.tree.map(lambda w: jnp.zeros(w.shape, bool), params)
        return none | {"layers": [of_layer(layer) for layer in params["layers"]]}

    return Network(init, logits, *((maps, of_heads) if name == ATTENTION else ()))


def _perceptron(config) -> Network:
    """Two hidden layers on the embeddings of a and b, side by side."""
    dim, vocabulary = config.dim, config.modulus + 1

    def init(key):
        keys = jax.random.split(key, 4)
        return {
            "words": _embedding(keys[0], vocabulary, dim),
            "first": _linear(keys[1], 2 * dim, 4 * dim),
            "second": _linear(keys[2], 4 * dim, dim),
            "head": _linear(keys[3], dim, vocabulary),
        }

    def logits(params, tokens):
        pair = params["words"][tokens[:, :2]].reshape(len(tokens), -1)
        hidden = jax.nn.gelu(pair @ params["first"])
        return jax.nn.gelu(hidden @ params["second"]) @ params["head"]

    return Network(init, logits)
