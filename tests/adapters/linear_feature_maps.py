"""Adapters for linear forms whose weights are made of other sums: Flow-Attention, agents."""

import jax
import jax.numpy as jnp

from jattn.mechanisms.layers.heads import merge_heads, split_heads
from jattn.mechanisms.linear import agent_attention
from jattn.mechanisms.linear.flow_attention import flow_attention


def flow(case):
    """Output, and the gradient of sum(o * do)."""
    options = case.info["options"]
    chosen = {name: options[name] for name in ("causal", "eps") if name in options}
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}

    def loss(*qkv):
        out = flow_attention(*qkv, **chosen)
        return jnp.sum(out * arrays.get("do", 0.0)), out

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, out), grads = run(*(arrays[name] for name in "qkv"))
    outputs = {"o": out} | dict(zip(("dq", "dk", "dv"), grads, strict=True))
    return {name: value for name, value in outputs.items() if name in arrays}


def agents(case):
    """A layer on an image, whose projections have biases, and the gradient of sum(y * do) to x."""
    options = case.info["options"]
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    weights = {name[6:]: array for name, array in arrays.items() if name.startswith("param.")}
    # torch: [out, in] and, of the convolution, [channels, 1, y, x]
    convolution = {
        "weight": jnp.moveaxis(weights["dwc.weight"][:, 0], 0, -1),
        "bias": weights["dwc.bias"],
    }
    biases = {name: weights[f"{name}_bias"] for name in ("an", "na")} | {
        name: weights[f"{name}_bias"][0]
        for name in ("ah", "aw", "ha", "wa", "ac", "ca")
        if f"{name}_bias" in weights
    }

    def loss(x):
        packed = x @ weights["qkv.weight"].T + weights.get("qkv.bias", 0.0)
        query, key, value = (
            split_heads(part, options["heads"]) for part in jnp.split(packed, 3, axis=-1)
        )
        out = agent_attention.image_agent_attention(
            query, key, value, biases, convolution, grid=tuple(options["grid"])
        )
        y = merge_heads(out) @ weights["proj.weight"].T + weights.get("proj.bias", 0.0)
        return jnp.sum(y * arrays.get("do", 0.0)), y

    (_, y), dx = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays["x"])
    return {name: value for name, value in (("y", y), ("dx", dx)) if name in arrays}


ADAPTERS = {
    ("linear_and_memory", "flow_attention"): flow,
    ("linear_and_memory", "agent_attention"): agents,
}
