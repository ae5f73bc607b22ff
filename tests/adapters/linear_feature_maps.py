"""Adapters for linear forms whose weights are made of other sums: Flow-Attention."""

import jax
import jax.numpy as jnp

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


ADAPTERS = {("linear_and_memory", "flow_attention"): flow}
