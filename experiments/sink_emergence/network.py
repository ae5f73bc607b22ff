"""A decoder whose attention is chosen by numbers, so that all kinds of it are one program.

    o_i = sum_j w_ij v_j / Z_i,    w_ij = sim(q_i.k_j / sqrt(d)) or phi(q_i).phi(k_j) / sqrt(d)

with a learnt key k* and value v* beside the others: a key bias has weight exp(q.k* / sqrt(d)) and
no value, a value bias adds v* to every output. They have no position.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from experiments.sink_emergence.arm import BIASES, OPERATIONS, POSITIONS, Arm, is_any
from jattn.attention.positions import rotary
from jattn.mechanisms.layers.heads import merge_heads, qkv, qkvo_init
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.layers.norms import rms_norm
from jattn.recurrence.feature_maps import elu1


class Seen(NamedTuple):
    """What a layer does, beside its output.

    Attributes:
        weights: shares of weights, by magnitude, on real keys `[b, h, t, t]`.
        bias: share on the key bias `[b, h, t]`.
        query, key, value: `[b, t, h, d]`.
        stream: the residual stream behind the layer `[b, t, m]`.
    """

    weights: jax.Array
    bias: jax.Array
    query: jax.Array
    key: jax.Array
    value: jax.Array
    stream: jax.Array


def init(key: jax.Array, config, vocabulary: int) -> dict[str, Any]:
    """Random parameters, with those of every kind of attention."""
    dim, heads = config.dim, config.heads
    size = dim // heads
    of_words, of_places, of_layers = jax.random.split(key, 3)

    def layer(key):
        keys = jax.random.split(key, 7)
        return {
            "mixer": qkvo_init(keys[0], dim, heads),
            "key_bias": 0.02 * jax.random.normal(keys[1], (heads, size)),
            "value_bias": 0.02 * jax.random.normal(keys[2], (heads, size)),
            "features": [linear_init(keys[3], size, size), linear_init(keys[4], size, size)],
            "up": linear_init(keys[5], dim, 2 * dim),
            "down": linear_init(keys[6], 2 * dim, dim),
            "norms": jnp.ones((2, dim)),
        }

    return {
        "words": jax.random.normal(of_words, (vocabulary, dim)) * dim**-0.5,
        "places": 0.02 * jax.random.normal(of_places, (config.length, dim)),
        "layers": [layer(k) for k in jax.random.split(of_layers, config.layers)],
        "norm": jnp.ones(dim),
    }


def logits(
    params: dict[str, Any], config, arm: Arm, tokens: Int[Array, "b t"]
) -> tuple[Float[Array, "b t v"], list[Seen]]:
    """Logits of the next token, read out by the embeddings, and what each layer saw."""
    learned = is_any(arm.positions, POSITIONS, "learned")
    x = params["words"][tokens] + learned * params["places"]
    seen = []
    for layer in params["layers"]:
        mixed, found = attention(layer, config, arm, rms_norm(x, layer["norms"][0]))
        x = x + mixed
        x = x + jax.nn.gelu(rms_norm(x, layer["norms"][1]) @ layer["up"]) @ layer["down"]
        seen.append(found._replace(stream=x))
    return rms_norm(x, params["norm"]) @ params["words"].T, seen


def visible(arm: Arm, length: int) -> Bool[Array, "t t"]:
    """Which keys a query sees."""
    i, j = jnp.arange(length)[:, None], jnp.arange(length)
    near = (arm.window == 0) | (i - j < arm.window)
    return (i >= j) & near | (j < arm.prefix) & (i < arm.prefix)


def attention(
    layer: dict[str, Any], config, arm: Arm, x: Float[Array, "b t m"]
) -> tuple[Float[Array, "b t m"], Seen]:
    """A layer's attention."""
    heads, length = config.heads, x.shape[1]
    query, key, value = qkv(layer["mixer"], x, x, heads, heads)
    turned = is_any(arm.positions, POSITIONS, "rotary")
    query, key = (jnp.where(turned, rotary(part), part) for part in (query, key))
    out, weights, bias = mixed(query, key, value, layer, arm, visible(arm, length))
    return merge_heads(out) @ layer["mixer"]["output"], Seen(weights, bias, query, key, value, x)


def mixed(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    layer: dict[str, Any],
    arm: Arm,
    seen: Bool[Array, "t t"],
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h t t"], Float[Array, "b h t"]]:
    """Outputs of heads, and shares of the weights by magnitude, on keys and on the bias."""
    heads, size = query.shape[-2:]
    chosen = lambda *names: is_any(arm.operation, OPERATIONS, *names)
    products = lambda q, k: jnp.einsum("bihd,bjhd->bhij", q, k) * size**-0.5
    features = lambda x: jax.nn.relu(x @ layer["features"][0]) @ layer["features"][1]

    slopes = 2.0 ** (-8.0 * jnp.arange(1, heads + 1) / (heads + 1))
    back = jnp.arange(len(seen))[:, None] - jnp.arange(len(seen))
    alibi = is_any(arm.positions, POSITIONS, "alibi") * slopes[:, None, None] * back
    scores = products(query, key) - alibi

    beside = is_any(arm.bias, BIASES, "key", "key_value")
    star = jnp.einsum("bihd,hd->bhi", query, layer["key_bias"]) * size**-0.5
    star = jnp.where(beside, star, -jnp.inf)
    hidden = jnp.where(seen, scores, -jnp.inf)
    largest = jax.lax.stop_gradient(jnp.maximum(hidden.max(-1), star))
    star = jnp.where(chosen("softmax"), jnp.exp(star - largest), 0.0)
    weights = jnp.select(
        [
            chosen("softmax"),
            chosen("sigmoid", "sigmoid_norm"),
            chosen("elu", "elu_norm"),
            chosen("identity"),
            chosen("elu_kernel_norm"),
        ],
        [
            jnp.exp(jnp.minimum(scores - largest[..., None], 0.0)),
            jax.nn.sigmoid(scores),
            elu1(scores),
            scores,
            products(elu1(query), elu1(key)),
        ],
        products(features(query), features(key)),
    )
    weights = jnp.where(seen, weights, 0.0)
    total = weights.sum(-1) + star
    positive = chosen("softmax", "sigmoid_norm", "elu_norm", "elu_kernel_norm")
    signed = jnp.where(chosen("mlp_norm"), jnp.maximum(jnp.abs(total), 1.0), 1.0)
    total = jnp.where(positive, total + 1e-8, signed)

    out = jnp.einsum("bhij,bjhe->bihe", weights / total[..., None], value)
    own = is_any(arm.bias, BIASES, "key_value") * (star / total).mT[..., None]
    own = own + is_any(arm.bias, BIASES, "value")
    out = out + own * layer["value_bias"]
    magnitude = jnp.abs(weights)
    whole = magnitude.sum(-1) + star + 1e-20
    return out, magnitude / whole[..., None], star / whole
