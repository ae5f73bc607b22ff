"""Attention-only networks of one head a layer, under each mask, and their read-out."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jattn import masks
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.tasks.novel_classes import Classified
from jattn.theory.position_bias import Layer, self_attention_network
from jattn.training import Paper

PAPER = Paper("arXiv 2502.01951", "On the emergence of position bias in transformers")
MASKS = ("causal", "none", "decay", "window", "prefix", "rotary")
READ_OUT = 3  # hidden layers behind the last position


class Spec(NamedTuple):
    """What is trained: a mask, and how many layers."""

    mask: str
    layers: int

    @property
    def name(self) -> str:
        return f"{self.mask}_{self.layers}"


def masking(config, mask: str) -> dict[str, Any]:
    """The arguments of `self_attention_network` for a mask by its name."""
    chosen: dict[str, dict[str, Any]] = {
        "none": dict(mask=None),
        "causal": dict(mask=masks.causal()),
        "decay": dict(mask=masks.causal(), decay=-math.log(config.gamma)),
        "window": dict(mask=masks.sliding_window(config.window)),
        "prefix": dict(mask=masks.causal() | masks.prefix(config.prefix)),
        "rotary": dict(mask=masks.causal(), rotary=True),
    }
    return chosen[mask]


def init(key: jax.Array, config, spec: Spec) -> dict[str, Any]:
    """Random weights."""
    of_layers, of_hidden, of_output = jax.random.split(key, 3)
    dim, hidden = config.dim, config.hidden
    widths = [dim, *[hidden] * READ_OUT]
    return {
        "layers": [
            Layer(*(linear_init(k, dim, dim) for k in jax.random.split(own, 3)))
            for own in jax.random.split(of_layers, spec.layers)
        ],
        "hidden": [
            {"weight": linear_init(k, into, out), "bias": jnp.zeros(out)}
            for k, into, out in zip(
                jax.random.split(of_hidden, READ_OUT), widths, widths[1:], strict=False
            )
        ],
        "output": linear_init(of_output, hidden, config.labels),
    }


def logits(params: dict[str, Any], config, spec: Spec, x: jax.Array) -> jax.Array:
    """Logits of the labels, read at the last position `[b, labels]`."""
    hidden, _ = self_attention_network(params["layers"], x, **masking(config, spec.mask))
    read = hidden[:, -1]
    for layer in params["hidden"]:
        read = jax.nn.relu(read @ layer["weight"] + layer["bias"])
    return read @ params["output"]


def loss(params: dict[str, Any], config, spec: Spec, batch: Classified) -> jax.Array:
    """Mean cross-entropy of the answers, in nats."""
    log_probabilities = jax.nn.log_softmax(logits(params, config, spec, batch.x))
    return -jnp.take_along_axis(log_probabilities, batch.answer[:, None], axis=-1).mean()
