"""Adapters for the Dynamical Systems Framework: normalised attention and the quasi-LSTM."""

import jax
import jax.numpy as jnp

import jattn
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.theory import dynamical_systems as dsf
from jattn.theory import quasi_lstm


def attention(case):
    """Softmax, linear and normalised attention, and their gradients."""
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    causal = case.info["options"]["causal"]
    cores = {
        "softmax": lambda q, k, v, n: jattn.attend(
            q, k, v, mask=jattn.masks.causal() if causal else None
        ),
        "linear_elu1": lambda q, k, v, n: linear_attention(q, k, v, causal=causal),
    }
    for eta in dsf.ETAS:
        cores[f"norm_{eta}"] = lambda q, k, v, n, eta=eta: dsf.normalized_attention(
            q,
            k,
            v,
            n,
            eta=eta,  # type: ignore
        )
    inputs = tuple(arrays[name] for name in "qkvn")
    outputs = {}
    for name, core in cores.items():
        if f"out_{name}" not in arrays:
            continue

        @jax.jit
        def run(inputs, cotangent, core=core):
            out, pull = jax.vjp(core, *inputs)
            return out, pull(cotangent)

        outputs[f"out_{name}"], pulled = run(inputs, arrays["cotangent"])
        grads = zip("qkvn", pulled, strict=True)
        outputs |= {f"d{of}_{name}": grad for of, grad in grads if f"d{of}_{name}" in arrays}
    return outputs


def qlstm(case):
    """The token mixer of the authors' code; its weights are [outputs, inputs]."""
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    params = quasi_lstm.Parameters(
        arrays["input_weight"].T,
        arrays["conv_weight"][:, 0].T,
        arrays["conv_bias"],
        arrays["gates_weight"].T,
        arrays["gates_bias"],
        arrays["output_weight"].T,
        arrays["alpha"],
    )
    reversed_gate = case.info["options"]["reversed_sigmoid"]
    return {"out": quasi_lstm.apply(params, arrays["x"], reversed_gate=reversed_gate)}


ADAPTERS = {
    ("theory", "dynamical_systems_attention"): attention,
    ("theory", "qlstm"): qlstm,
}
