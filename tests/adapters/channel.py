"""Adapters for gates over channels."""

import jax
import jax.numpy as jnp

from jattn.mechanisms.channel import squeeze_excitation


def channel_attention(case):
    """Of the case's blocks those that jattn has; torch's convolutions are `[out, in, 1, 1]`."""
    hyper = case.info["hyper"]
    gate = squeeze_excitation.make(dim=hyper["channels"], reduction=hyper["reduction"])
    params = {
        "down": jnp.asarray(case.arrays["se/param/fc1.weight"][:, :, 0, 0].T),
        "up": jnp.asarray(case.arrays["se/param/fc2.weight"][:, :, 0, 0].T),
    }
    last, first = (lambda x: jnp.moveaxis(x, 1, -1)), (lambda x: jnp.moveaxis(x, -1, 1))
    y, pull = jax.vjp(lambda x: first(gate.apply(params, last(x))), jnp.asarray(case.arrays["x"]))
    return {"se/out": y, "se/grad_x": pull(jnp.asarray(case.arrays["cotangent"]))[0]}


ADAPTERS = {("vision_pooling_and_cognition", "channel_attention"): channel_attention}
