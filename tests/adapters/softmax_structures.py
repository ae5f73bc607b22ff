"""Adapters for attention that changes who sends to whom."""

import jax.numpy as jnp

from jattn.mechanisms.softmax.dependency_tree import dependencies
from jattn.mechanisms.softmax.reversed_attention import reversed_attention, senders
from tests.adapters.layers import per_layer
from tests.adapters.softmax_gates import outputs_and_gradients, projected

SHARED_RANKS = {"wqkv": 4, "bqkv": 3, "w_select": 2, "w_msg1": 2, "w_msg2": 2, "wo": 3, "bo": 1}


def reversed_layers(case):
    """Weights that have one axis more are of each layer; what has one more is stacked, too."""
    options = case.info["options"]
    layers = options.get("layers", 1)

    def run(arrays):
        x, message, seen = arrays["x"], None, []
        weights_of = {n: per_layer(arrays, n, rank, layers) for n, rank in SHARED_RANKS.items()}
        for layer in range(layers):
            own = {name: each[layer] for name, each in weights_of.items() if each}
            gates = {
                "select": own["w_select"],
                "message_up": own["w_msg1"],
                "message_down": own["w_msg2"],
            }
            share, message = senders(gates, x, message)
            together = jnp.einsum("btm,mphd->pbthd", x, own["wqkv"])
            if "bqkv" in own:
                together += own["bqkv"][:, None, None]
            query, key, value = together
            weights = share * message[..., None]
            x = projected(reversed_attention(query, key, value, weights), own)
            seen.append({"p": share, "m": message, "dependency": dependencies(query, key, weights)})
        found = {"y": x}
        for name, last in seen[-1].items():
            named = {f"{name}_{i}": each[name] for i, each in enumerate(seen)}
            if named.keys() <= arrays.keys():
                found |= named
                continue
            every = jnp.shape(arrays.get(name, last)) != last.shape
            found[name] = jnp.stack([each[name] for each in seen]) if every else last
        return found

    return outputs_and_gradients(case, run, {"x": "dx"})


ADAPTERS = {("softmax_variants", "reversed_attention"): reversed_layers}
