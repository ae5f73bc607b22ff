"""Adapters for diagnostics of attention maps: heads, position bias, sinks."""

import math

import jax
import jax.numpy as jnp

from jattn import masks
from jattn.attention.positions import rotary
from jattn.lens.heads import head_statistics
from jattn.lens.sinks import sink_metric
from jattn.theory import position_bias, sink_operations
from tests.adapters.layers import per_layer


def grok_metrics(case):
    """Statistics of heads; in float64 where it is on."""
    found = head_statistics(jnp.asarray(case.arrays["attn"]))._asdict()
    return {name: value for name, value in found.items() if name in case.arrays}


def posbias(case):
    """A self-attention network, its maps and rollout, and the read-out at the last position."""
    options = case.info["options"]
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    weights = zip(*(per_layer(arrays, f"w{of}", rank=2) for of in "qkv"), strict=True)
    layers = [position_bias.Layer(*of_layer) for of_layer in weights]
    mask = {
        "none": lambda: None,
        "full": lambda: None,
        "causal": masks.causal,
        "decay": masks.causal,
        "window": lambda: masks.sliding_window(options["window_size"]),
        "prefix": lambda: masks.causal() | masks.prefix(options["num_prefixes"]),
    }[options["mask"] or "none"]()
    if options["pe"] not in (None, "rope"):
        raise ValueError(f"pe: expected null or rope, got {options['pe']!r}")
    hidden, maps = position_bias.self_attention_network(
        layers,
        arrays["x"],
        mask=mask,
        decay=-math.log(options["gamma"]) if options["mask"] == "decay" else 0.0,
        rotary=options["pe"] == "rope",
        residual=options["residual"],
    )
    read = hidden[:, -1]
    mlp = (per_layer(arrays, "mlp_w", rank=2), per_layer(arrays, "mlp_b", rank=1))
    for weight, bias in zip(*mlp, strict=True):
        read = jax.nn.relu(read @ weight + bias)
    outputs = {
        "hidden": hidden,
        "attn": maps,
        "rollout": position_bias.rollout(maps[:, :, None]),
        "logits": read @ arrays["out_w"] + arrays["out_b"],
    }
    return {name: value for name, value in outputs.items() if name in arrays}


def sink_ops(case):
    """Similarity and kernel forms of attention, and how many heads have a sink."""
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    query, key = arrays["q"], arrays["k"]
    if case.info["options"].get("rope"):
        query, key = rotary(query), rotary(key)
    outputs = {}
    for name in arrays:
        form, _, rest = name.partition("_")
        if form == "sim":
            similarity, norm = rest.split("_")
            outputs[name] = sink_operations.similarity_attention(
                query,
                key,
                arrays["v"],
                similarity=similarity,  # type: ignore
                normalize=norm == "norm",
            )
        elif form == "kernel":
            kernel, norm = rest.split("_")
            outputs[name] = sink_operations.kernel_attention(
                query,
                key,
                arrays["v"],
                feature_map={"linear": "identity", "elu": "elu1"}[kernel],  # type: ignore
                normalize=norm == "norm",
            )
        elif name.startswith("sink_metric_eps"):
            threshold = float(name.removeprefix("sink_metric_eps"))
            outputs[name] = 100 * sink_metric(arrays["sink_attn"], threshold)
    return outputs


ADAPTERS = {
    ("theory_scan_snap_and_pavlovian", "grok_metrics"): grok_metrics,
    ("theory_scan_snap_and_pavlovian", "posbias"): posbias,
    ("theory_scan_snap_and_pavlovian", "sink_ops"): sink_ops,
}
