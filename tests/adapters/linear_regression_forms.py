"""Adapters for Hedgehog, local linear attention and its covariance form."""

import jax
import jax.numpy as jnp

from jattn.attention import attend, masks
from jattn.mechanisms.linear.hedgehog import distillation_loss, hedgehog, hedgehog_features
from jattn.mechanisms.linear.local_linear_attention import local_linear_attention, local_probe
from jattn.mechanisms.linear.parallax import covariance_attention

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


def _visible(options):
    """The mask of a case: causal with a window of the last tokens, or neither."""
    if not options.get("causal", True):
        return None
    window = options.get("window_size")
    return masks.causal() if window is None else masks.sliding_window(window)


def _values_and_gradients(function, arrays, names):
    """Outputs of a function of the named inputs, and the gradients of sum(o * do)."""

    def loss(inputs):
        outputs = function(*inputs)
        return jnp.sum(outputs["o"] * arrays.get("do", 0.0)), outputs

    inputs = [arrays[name] for name in names]
    (_, outputs), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs)
    outputs |= {f"d{name}": gradient for name, gradient in zip(names, gradients, strict=True)}
    return {name: value for name, value in outputs.items() if name in arrays}


def local_linear(case):
    """Output, weights, gradients, and the authors' rho; their arrays may lack the axis of heads."""
    options = case.info["options"]
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    heads = arrays["q"].ndim == 4
    inner = (lambda x: x) if heads else (lambda x: x[:, :, None])
    outer = (lambda x: x) if heads else (lambda x: x[:, :, 0])
    scale, mask = options.get("qk_scale"), _visible(options)
    solved = {"scale": scale, "mask": mask, "solver": options.get("solver", "exact")}
    solved["ridge"] = jnp.asarray(arrays.get("ridge_lambda", options.get("ridge_lambda", 0.1)))

    def run(q, k, v):
        q, k, v = inner(q), inner(k), inner(v)
        out, weights = local_linear_attention(q, k, v, return_weights=True, **solved)
        probe = local_probe(q, k, **solved)
        # Centred at q instead of at the mean of the keys, the system has another solution.
        mean, lse = attend(q, k, k, mask=mask, scale=scale, return_lse=True)
        stretch = 1 + ((mean - q) * probe).sum(-1)
        # Their divisor is omega / stretch with the largest weight 1, and an epsilon more.
        scores = jnp.einsum("bthd,bshd->bhts", q, jnp.repeat(k, q.shape[2] // k.shape[2], 2))
        scores *= q.shape[-1] ** -0.5 if scale is None else scale
        seen = True if mask is None else mask.dense(*scores.shape[2:])
        largest = jnp.swapaxes(jnp.where(seen, scores, -jnp.inf).max(-1), 1, 2)
        divisor = jnp.exp(lse - largest) / stretch
        shrink = divisor / (divisor + options.get("delta_eps", 0.0))
        weights *= jnp.swapaxes(shrink, 1, 2)[..., None]
        return {
            "o": outer(out * shrink[..., None]),
            "rho": outer(probe / stretch[..., None]),
            "weights": weights if heads else weights[:, 0],
        }

    return _values_and_gradients(run, arrays, "qkv")


def parallax(case):
    """Output and gradients."""
    options = case.info["options"]
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    chosen = {"scale": options.get("scale"), "mask": _visible(options)}
    run = lambda *qrkv: {"o": covariance_attention(*qrkv, **chosen)}
    return _values_and_gradients(run, arrays, "qrkv")


ADAPTERS = {
    ("linear_and_memory", "hedgehog"): learned_features,
    ("linear_and_memory", "local_linear_attention"): local_linear,
    ("linear_and_memory", "parallax"): parallax,
}
