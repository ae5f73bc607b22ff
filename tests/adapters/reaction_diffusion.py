"""Adapters for reaction and diffusion."""

from typing import Any

import jax
import jax.numpy as jnp

from jattn.mechanisms.memory.grids import laplacian1d, laplacian2d
from jattn.mechanisms.memory.reaction_diffusion_layer import DILATIONS, reaction_diffusion, settle

COEFFICIENT = 0.1  # of the one-dimensional operators, before the softplus


def _parameters(arrays):
    """The case's parameters, whose weights are from outputs to inputs, as ours."""
    at = lambda name: jnp.asarray(arrays[f"param.{name}"])

    def affine(name):
        weight = at(f"{name}.weight")  # a convolution of one pixel has two axes more
        return {"weight": weight.reshape(weight.shape[:2]).T, "bias": at(f"{name}.bias")}

    return {
        "diffusion": at("diffusion.D"),
        "reaction": {"inner": affine("reaction.net.0"), "outer": affine("reaction.net.2")},
        "memory": {"gate": affine("memory.gate"), "value": affine("memory.value")},
        "local": affine("local_proj"),
        "norm": at("norm.weight"),
        "log_dt": at("log_dt"),
        "alpha_global": at("alpha_global"),
        "alpha_local": at("alpha_local"),
    }


def layer(case):
    """The operators, the layer with the gradient of sum(y * do), and where it stops early."""
    options, arrays = case.info["options"], case.arrays
    dilations = tuple(options.get("dilations", DILATIONS))
    steps = options.get("max_steps", 12)
    outputs: dict[str, Any] = {}
    for name, causal in (("lap1d", False), ("lap1d_causal", True)):
        if name in arrays:
            u = jnp.moveaxis(jnp.asarray(arrays["x1d"]), 1, 2)
            weights = jax.nn.softplus(jnp.full((len(dilations), u.shape[-1]), COEFFICIENT))
            out = laplacian1d(u, weights, dilations, causal=causal)
            outputs[name] = jnp.moveaxis(out, 2, 1)
    if "u" not in arrays:
        return outputs
    params = _parameters(arrays)
    u = jnp.moveaxis(jnp.asarray(arrays["u"]), 1, 3)
    back = lambda y: jnp.moveaxis(y, 3, 1)
    if "diffusion_u" in arrays:
        weights = jax.nn.softplus(params["diffusion"])
        outputs["diffusion_u"] = back(laplacian2d(u, weights, dilations))
    shared: dict[str, Any] = dict(
        dilations=dilations,
        norm_every=options.get("norm_every", 2),
        regions=options.get("local_memory_hw", 4),
    )
    slope = jnp.moveaxis(jnp.asarray(arrays["do"]), 1, 3) if "do" in arrays else 0.0

    def loss(u):
        y = reaction_diffusion(u, params, steps, **shared)
        return (y * slope).sum(), y

    (_, y), du = jax.jit(jax.value_and_grad(loss, has_aux=True))(u)
    outputs["y"] = back(y)
    if "du" in arrays:
        outputs["du"] = back(du)
    if "y_eval" in arrays:
        found = jax.jit(
            lambda u: settle(
                u,
                params,
                steps,
                epsilon=options.get("epsilon", 0.08),
                min_steps=options.get("min_steps", 3),
                patience=options.get("stop_patience", 2),
                probes=options.get("stop_probe_hw", 8),
                **shared,
            )
        )(u)
        outputs["y_eval"] = back(found.u)
        if "steps_used_eval" in arrays:
            outputs["steps_used_eval"] = found.steps
        if "stop_history_eval" in arrays:
            outputs["stop_history_eval"] = found.history[: len(arrays["stop_history_eval"])]
    return outputs


ADAPTERS = {("linear_and_memory", "reaction_diffusion"): layer}
