"""A small model whose token mixer is any of the framework's systems; all else is equal.

x = embed(tokens) (+ positions);   x += mixer(conv(norm(x)));   x += mlp(norm(x)) if there is one

The convolution, causal and of four taps for each channel, stands before every mixer alike: without
it attention needs hundreds of times as many steps to find out which token came before which.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import jattn
from jattn.mechanisms.layers.convolutions import causal_depthwise
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.recurrence import recur
from jattn.tasks.associative_recall import Recall
from jattn.theory import quasi_lstm
from jattn.theory.dynamical_systems import normalized_attention, selective_system

MLP_RATIO, EMBEDDING_STD, TAPS = 4, 0.02, 4
SMALLEST_STEP, LARGEST_STEP = 1e-3, 0.1  # of the state space model at initialisation


def _softmax(params, query, key, value, raw):
    return jattn.attend(query, key, value, mask=jattn.masks.causal())


def _linear(params, query, key, value, raw):
    return linear_attention(query, key, value, causal=True)


def _normalized(eta):
    return lambda params, query, key, value, raw: normalized_attention(
        query, key, value, raw, eta=eta
    )


def _ssd(params, query, key, value, raw):
    rate = jnp.exp(params["log_rate"]) * jnp.ones(query.shape[2:])  # one a head
    system = selective_system(raw, rate, key, query)
    mixed = recur(system.read, system.write, value, decay=system.decay[..., 0])
    return mixed + params["skip"] * value


# Each takes its parameters, queries and keys [b, t, 1, n], values [b, t, 1, d] and one number a
# token [b, t, 1].
ATTENTION: dict[str, Callable] = {
    "softmax": _softmax,
    "linear": _linear,
    "exp": _normalized("exp"),
    "softplus": _normalized("softplus"),
    "sigmoid": _normalized("sigmoid"),
    "ssd": _ssd,
}
GATED = {"qlstm": False, "qlstm_reversed": True}
MIXERS = (*ATTENTION, *GATED)


class Spec(NamedTuple):
    """What is trained: a mixer, its state expansion n = d_qk, and whether there is an MLP."""

    mixer: str
    expansion: int
    mlp: bool = False

    @property
    def name(self) -> str:
        return f"{self.mixer}_{self.expansion}" + ("_mlp" if self.mlp else "")


def _affine_init(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    weight, bias = jax.random.split(key)
    return {
        "weight": linear_init(weight, inputs, outputs),
        "bias": linear_init(bias, inputs, outputs)[0],
    }


def _affine(params, x):
    return x @ params["weight"] + params["bias"]


def init(
    key: jax.Array, spec: Spec, *, vocabulary: int, length: int, dim: int, layers: int
) -> dict[str, Any]:
    """Random weights. Everything gets learned positions but the state space model."""
    of_tokens, of_positions, of_layers, of_output = jax.random.split(key, 4)

    def layer(key):
        keys = jax.random.split(key, 8)
        taps = linear_init(keys[6], TAPS, dim)
        params: dict[str, Any] = {"norm": jnp.ones(dim), "convolution": taps}
        if spec.mixer in GATED:
            params["mixer"] = quasi_lstm.init(keys[0], dim)._asdict()
        else:
            params["query_key"] = _affine_init(keys[0], dim, 2 * spec.expansion)
            params["value"] = _affine_init(keys[1], dim, dim)
            params["scalar"] = _affine_init(keys[2], dim, 1)
            params["output"] = _affine_init(keys[3], dim, dim)
        if spec.mixer == "ssd":
            logarithms = jnp.log(SMALLEST_STEP), jnp.log(LARGEST_STEP)
            step = jnp.exp(
                jax.random.uniform(keys[7], (), minval=logarithms[0], maxval=logarithms[1])
            )
            params["scalar"]["bias"] = jnp.log(jnp.expm1(step))[None]  # softplus of it is the step
            params["log_rate"], params["skip"] = jnp.zeros(()), jnp.ones(dim)
        if spec.mlp:
            params["mlp_norm"] = jnp.ones(dim)
            params["mlp_in"] = _affine_init(keys[4], dim, MLP_RATIO * dim)
            params["mlp_out"] = _affine_init(keys[5], MLP_RATIO * dim, dim)
        return params

    params = {
        "embedding": EMBEDDING_STD * jax.random.normal(of_tokens, (vocabulary, dim)),
        "layers": [layer(key) for key in jax.random.split(of_layers, layers)],
        "norm": jnp.ones(dim),
        "output": linear_init(of_output, dim, vocabulary),
    }
    if spec.mixer != "ssd":
        params["positions"] = EMBEDDING_STD * jax.random.normal(of_positions, (length, dim))
    return params


def _mix(params, spec, x):
    x = causal_depthwise(x, params["convolution"])
    if spec.mixer in GATED:
        weights = quasi_lstm.Parameters(**params["mixer"])
        return quasi_lstm.apply(weights, x, reversed_gate=GATED[spec.mixer])
    query, key = jnp.split(_affine(params["query_key"], x)[:, :, None], 2, axis=-1)
    value = _affine(params["value"], x)[:, :, None]
    mixed = ATTENTION[spec.mixer](params, query, key, value, _affine(params["scalar"], x))
    return _affine(params["output"], mixed[:, :, 0])


def logits(params: dict[str, Any], spec: Spec, batch: Recall) -> jax.Array:
    """Predictions at the queries, `[b, pairs, vocabulary]`."""
    x = params["embedding"][batch.tokens]
    if "positions" in params:
        x = x + params["positions"]
    for layer in params["layers"]:
        x = x + _mix(layer, spec, rms_norm(x, layer["norm"]))
        if spec.mlp:
            hidden = jax.nn.gelu(_affine(layer["mlp_in"], rms_norm(x, layer["mlp_norm"])))
            x = x + _affine(layer["mlp_out"], hidden)
    x = jnp.take_along_axis(x, batch.queries[..., None], axis=1)
    return rms_norm(x, params["norm"]) @ params["output"]


def loss(params: dict[str, Any], spec: Spec, batch: Recall) -> jax.Array:
    """Mean cross-entropy of the answers, in nats."""
    log_probabilities = jax.nn.log_softmax(logits(params, spec, batch))
    chosen = jnp.take_along_axis(log_probabilities, batch.answers[..., None], axis=-1)
    return -chosen.mean()


def accuracy(params: dict[str, Any], spec: Spec, batch: Recall, pieces: int) -> jax.Array:
    """Share of right answers, the batch looked at in so many pieces to bound memory."""

    def one(piece):
        return (logits(params, spec, piece).argmax(-1) == piece.answers).mean()

    split = jax.tree.map(lambda leaf: leaf.reshape(pieces, -1, *leaf.shape[1:]), batch)
    return lax.map(one, split).mean()
