"""Adapters for Hedgehog, local linear attention and its covariance form."""

import jax
import jax.numpy as jnp

from jattn.attention import attend, masks
from jattn.mechanisms.linear.hedgehog import distillation_loss, hedgehog, hedgehog_features

KINDS = ("softmax_dim", "exp_dim", "exp", "joint_softmax")


def learned_features(case):
    """Features, weights and outputs of every map the case has, the distillation loss, gradients."""
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    options = case.info["options"]
    causal = options.get("causal", True)
    query, key, value = arrays["q"], arrays["k"], arrays["v"]
    # Weights are what the values of the unit vectors become.
    units = jnp.broadcast_to(jnp.eye(key.shape[1])[None, :, None], (*key.shape[:3], key.shape[1]))

    @jax.jit
    def run():
        found = {}
        for kind in KINDS:
            biased = kind == "joint_softmax" and "bq" in arrays
            maps = [
                {"weight": arrays[f"W{x}"]} | ({"bias": arrays[f"b{x}"]} if biased else {})
                for x in "qk"
            ]
            for name, x, of in (("q", query, maps[0]), ("k", key, maps[1])):
                features = hedgehog_features(x, **of, feature_map=kind)
                found[f"phi_{name}_{kind}"] = jnp.swapaxes(features, 1, 2)
            mixed = {"feature_map": kind, "causal": causal}
            found[f"o_{kind}"] = hedgehog(query, key, value, *maps, **mixed)
            weights = hedgehog(query, key, units, *maps, **mixed)
            found[f"attn_{kind}"] = jnp.swapaxes(weights, 1, 2)

        def loss(weights):
            maps = [{"weight": weight} for weight in weights]
            return distillation_loss(query, key, *maps, causal=causal)

        pair = (arrays["Wq"], arrays["Wk"])
        found["distill_loss"], (found["dWq"], found["dWk"]) = jax.value_and_grad(loss)(pair)
        mask = masks.causal() if causal else None
        found["teacher"] = attend(query, key, key, mask=mask, return_weights=True)[1]
        return found

    return {name: value for name, value in run().items() if name in arrays}


ADAPTERS = {("linear_and_memory", "hedgehog"): learned_features}
