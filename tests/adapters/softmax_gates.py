"""Adapters for gated, routed, differential, softplus and relative attention.

Weights come as `[m, h, d]` and may have heads of any size, so layers are put together here from
the mechanisms' own functions.
"""

from typing import Any

import jax
import jax.numpy as jnp

import jattn
from jattn.attention.positions import rotary
from jattn.mechanisms.combinators import gate, moh_gates, query_norm_gates
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.softmax.differential_attention import (
    VECTORS,
    diff_lambda,
    differential_attention,
    sub_norm,
)
from jattn.mechanisms.softmax.grouped_differential_attention import grouped_differential_attention
from jattn.mechanisms.softmax.relative_attention import relative_attention, relative_logits
from jattn.mechanisms.softmax.reweighted_softplus_attention import reweighted_softplus_attention
from jattn.mechanisms.softmax.softplus_attention import softplus_attention


def outputs_and_gradients(case, function, gradients):
    """What `function(arrays)` gives, and gradients of sum(its output * cotangent), by name.

    Args:
        case: the case.
        function: from arrays to `{name: output}`, the one the cotangent belongs to first.
        gradients: `{input: the name of its gradient}`; those the case has are taken.
    """
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    wanted = {name: of for name, of in gradients.items() if of in arrays}

    def loss(inputs):
        found = function(arrays | inputs)
        return (next(iter(found.values())) * arrays.get("cotangent", 0.0)).sum(), found

    inputs = {name: arrays[name] for name in wanted}
    grads, found = jax.jit(jax.grad(loss, has_aux=True))(inputs)
    found |= {of: grads[name] for name, of in wanted.items()}
    return {name: value for name, value in found.items() if name in arrays}


def heads_of(x, arrays, name):
    """`x W_name + b_name` in heads."""
    return jnp.einsum("btm,mhd->bthd", x, arrays[f"w{name}"]) + arrays.get(f"b{name}", 0.0)


def projected(out, arrays):
    return jnp.einsum("bthe,hem->btm", out, arrays["wo"]) + arrays.get("bo", 0.0)


def mask_of(options, default):
    return jattn.masks.causal() if options.get("causal", default) else None


def gated(case):
    options = case.info["options"]

    def run(arrays):
        x = arrays["x"]
        query, key, value = (heads_of(x, arrays, name) for name in "qkv")
        if options.get("qk_norm", False):
            query, key = rms_norm(query, arrays["q_norm"]), rms_norm(key, arrays["k_norm"])
        if options.get("rope", True):
            query, key = rotary(query), rotary(key)
        out = jattn.attend(query, key, value, mask=mask_of(options, True))
        return {"y": projected(gate(out, heads_of(x, arrays, "g")), arrays)}

    return outputs_and_gradients(case, run, {"x": "dx"})


def mixture_of_heads(case):
    options = case.info["options"]
    sizes = dict(shared=options["shared"], chosen=options["routed"])
    if "x" not in case.arrays:  # the router of a trained model alone
        query = jnp.asarray(case.arrays["q"])
        gates, share = query_norm_gates(query, **sizes)
        return {"mask": gates, "gates": share}

    def run(arrays):
        x = arrays["x"]
        query, key, value = (heads_of(x, arrays, name) for name in "qkv")
        routers = (arrays.get(name) for name in ("w_routed", "w_shared", "w_type"))
        gates, balance = moh_gates(x, *routers, **sizes)
        out = jattn.attend(query, key, value, mask=mask_of(options, False))
        return {"y": projected(out * gates[..., None], arrays), "aux": balance[None]}

    return outputs_and_gradients(case, run, {"x": "dx"})


def differential(case):
    """The weights are what values of unit vectors become."""
    options = case.info["options"]

    def run(arrays):
        x = arrays["x"]
        query, key, value = (heads_of(x, arrays, name) for name in "qkv")
        if options.get("rope", True):
            query, key = rotary(query, interleaved=True), rotary(key, interleaved=True)
        lambda_init = arrays["lambda_init"][0]
        lam = diff_lambda(**{name: arrays[name] for name in VECTORS}, lambda_init=lambda_init)
        attend = lambda value: differential_attention(
            query, key, value, lam, pairing="authors", mask=mask_of(options, True)
        )
        out = sub_norm(attend(value), arrays["subln"], lambda_init)
        length = x.shape[1]
        units = jnp.broadcast_to(jnp.eye(length)[:, None], (len(x), length, value.shape[2], length))
        return {
            "y": projected(out, arrays),
            "lambda_full": lam[None],
            "weights": jnp.swapaxes(attend(units), 1, 2),
        }

    return outputs_and_gradients(case, run, {"x": "dx"})


def grouped_differential(case):
    options = case.info["options"]

    def run(arrays):
        value = arrays["v"]
        pairs = value.reshape(*value.shape[:2], -1, 2 * value.shape[3])
        out = grouped_differential_attention(
            arrays["q"],
            arrays["k"],
            pairs,
            arrays["lambda_full"][0],
            ratio=options["ratio"],
            mask=mask_of(options, True),
        )
        normed = sub_norm(out, arrays["subln"], arrays["lambda_init"][0])
        return {"o": normed, "o_before_norm": out}

    return outputs_and_gradients(case, run, {"q": "dq", "k": "dk", "v": "dv"})


def softplus(case):
    """Softplus attention plain and re-weighted; the gradients are those of the second."""
    options = case.info["options"]

    def run(arrays):
        query, key, value = (arrays[name] for name in "qkv")
        (b, t), s = query.shape[:2], key.shape[1]
        causal = options.get("causal", True)
        common: Any = dict(
            mask=mask_of(options, True),
            visible_keys=jnp.arange(1, t + 1)[None] if causal else jnp.full((1, 1), s),
        )
        plain = lambda v: softplus_attention(query, key, v, **common)
        again = lambda v: reweighted_softplus_attention(query, key, v, power=options["p"], **common)
        units = jnp.broadcast_to(jnp.eye(s)[:, None], (b, s, value.shape[2], s))
        return {
            "o_lssar": again(value),
            "o_lssa": plain(value),
            "weights_lssa": jnp.swapaxes(plain(units), 1, 2),
            "weights_lssar": jnp.swapaxes(again(units), 1, 2),
        }

    return outputs_and_gradients(case, run, {"q": "dq", "k": "dk", "v": "dv"})


def relative(case):
    """Weights, here a mean over heads, are what values of unit vectors become."""
    options = case.info["options"]

    def run(arrays):
        x, length = arrays["x"], arrays["x"].shape[1]
        together = jnp.einsum("btm,mphd->pbthd", x, arrays["wqkv"])
        if "bqkv" in arrays:
            together += arrays["bqkv"][:, None, None]
        query, key, value = together
        table = arrays["er"] if arrays["er"].ndim == 3 else arrays["er"][None]
        attend = lambda value: relative_attention(
            query, key, value, table, mask=mask_of(options, True)
        )
        shape = (len(x), length, query.shape[2], length)
        weights = attend(jnp.broadcast_to(jnp.eye(length)[:, None], shape))
        return {
            "y": projected(attend(value), arrays),
            "srel": relative_logits(query, table),
            "mean_weights": weights.mean(2),
            "weights": jnp.swapaxes(weights, 1, 2),
        }

    return outputs_and_gradients(case, run, {"x": "dx", "er": "er_grad"})


ADAPTERS = {
    ("softmax_variants", "differential_attention"): differential,
    ("softmax_variants", "gated_attention"): gated,
    ("softmax_variants", "grouped_differential_attention"): grouped_differential,
    ("softmax_variants", "mixture_of_heads"): mixture_of_heads,
    ("softmax_variants", "relative_attention"): relative,
    ("softmax_variants", "softplus_attention_reweighted"): softplus,
}
