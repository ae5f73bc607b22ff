"""Adapter for attention to tokens that exist with a probability."""

import jax.numpy as jnp

import jattn
from jattn.attention.positions import rotary
from jattn.mechanisms.softmax.probabilistic_attention import exclude_own, probabilistic_attention
from tests.adapters.softmax_gates import outputs_and_gradients


def probabilistic(case):
    """Self-attention with p, without, and exclusive; and to another sequence where there is one."""
    options = case.info["options"]
    base = next((options[n] for n in ("theta", "rope_theta", "base") if n in options), 10000.0)

    def heads_of(arrays, x):
        query, key, value = (
            jnp.einsum("btm,mphd->pbthd", x, arrays["w_qkv"])
            + arrays.get("b_qkv", jnp.zeros(arrays["w_qkv"].shape[1:]))[:, None, None]
        )
        if options.get("rope", True):
            query, key = (rotary(each, base=base, interleaved=True) for each in (query, key))
        return query, key, value

    def run(arrays):
        query, key, value = heads_of(arrays, arrays["x"])
        existence = arrays["p"]
        out = probabilistic_attention(query, key, value, existence, existence)
        found = {
            "o": out,
            "o_xsa": exclude_own(out, value),
            "o_none": jattn.attend(query, key, value),
        }
        if "x_kv" in arrays:
            _, key, value = heads_of(arrays, arrays["x_kv"])
            found["o_cross"] = probabilistic_attention(query, key, value, existence, arrays["p_kv"])
        return found

    return outputs_and_gradients(case, run, {"x": "dx", "p": "dp"})


ADAPTERS = {("softmax_variants", "probabilistic_attention"): probabilistic}
