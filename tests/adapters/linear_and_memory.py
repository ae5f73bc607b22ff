"""Adapters for linear attention, decays and delta rules: all of them run through `jattn.recur`."""

import jax
import jax.numpy as jnp

from jattn.recurrence import recur

INPUTS = ("q", "k", "v", "g", "gk", "beta", "initial_state")
EPSILON = 1e-10  # the reference adds it to the normaliser


def recurrence(case):
    """Output, final state, and the gradient of sum(o * do) + sum(final_state * dstate)."""
    options = case.info["options"]
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    inputs = {name: arrays[name] for name in INPUTS if name in arrays}
    scale = options.get("scale", arrays["q"].shape[-1] ** -0.5)
    causal, normalize = options.get("causal", True), options.get("normalize", False)

    def run(inputs):
        value = inputs["v"]
        if normalize:  # the sum of keys is one more value column, of ones
            value = jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1)
        if causal:
            state = inputs.get("initial_state")
            if normalize and state is not None:
                state = jnp.pad(state, ((0, 0), (0, 0), (0, 0), (0, 1)))
            out, state = recur(
                scale * inputs["q"],
                inputs["k"],
                value,
                decay=inputs.get("gk", inputs.get("g")),
                beta=inputs.get("beta"),
                initial_state=state,
                return_state=True,
            )
        else:
            state = jnp.einsum("bthd,bthe->bhde", inputs["k"], value)
            out = scale * jnp.einsum("bthd,bhde->bthe", inputs["q"], state)
        sums = state[..., -1]
        if normalize:
            out, state = out[..., :-1] / (out[..., -1:] + EPSILON), state[..., :-1]
        return out, state, sums

    def loss(inputs):
        out, state, sums = run(inputs)
        value = jnp.sum(out * arrays["do"]) + jnp.sum(state * arrays.get("dstate", 0.0))
        return value, (out, state, sums)

    if "do" in arrays:
        (_, found), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs)
    else:
        found, grads = jax.jit(run)(inputs), {}
    outputs = {"o": found[0], "final_state": found[1], "final_z": found[2][:, None]}
    outputs |= {f"d{name}": grad for name, grad in grads.items()}
    return {name: value for name, value in outputs.items() if name in arrays}


ADAPTERS = {
    ("linear_and_memory", mechanism): recurrence
    for mechanism in (
        "linear_attention",
        "decay_linear_attention",
        "gated_linear_attention",
        "delta_rule",
        "gated_delta_rule",
    )
}
