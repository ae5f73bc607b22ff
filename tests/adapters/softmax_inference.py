"""Adapters for what is done to trained softmax attention when it is used."""

import numpy as np

from jattn.mechanisms.softmax.position_invariant import Layout, position_invariant_attention
from tests.adapters.softmax_gates import outputs_and_gradients


def documents_without_order(case):
    """PINE on arrays of queries, keys and values before any rotation."""
    options = case.info["options"]
    documents = tuple(int(count) for count in options.get("docs", case.arrays.get("doc_lengths")))
    prefix = options.get("prefix", 0)
    base = next((options[n] for n in ("theta", "rope_theta", "base") if n in options), 10000.0)

    def run(arrays):
        out = position_invariant_attention(
            arrays["q"], arrays["k"], arrays["v"], prefix=prefix, documents=documents, base=base
        )
        places = Layout(prefix, documents).positions(arrays["k"].shape[1])
        return {"o": out, "stacked_positions": np.asarray(places)}

    return outputs_and_gradients(case, run, {"q": "dq", "k": "dk", "v": "dv"})


ADAPTERS = {("softmax_variants", "position_invariant_attention"): documents_without_order}
