"""The sink metric of a trained language model, beside those of the small ones (K16)."""

import jax
import numpy as np

from experiments.language_model import language_model, program
from experiments.sink_emergence import figures
from experiments.sink_emergence.training import PAPER, THRESHOLD
from jattn import lens
from jattn.lens.sinks import sink_metric
from jattn.pretrained import smollm2
from jattn.tasks.text import english_text
from jattn.training import Claim, Run


@program
def _sinks(model, tokens):
    probs = lens.run(model, tokens, record=("probs",))[1]["probs"]
    return sink_metric(jax.numpy.moveaxis(probs, 1, 0), THRESHOLD)


def trained_model(run: Run, config) -> list[Claim]:
    """Sink_k of SmolLM2-135M on English, if it is installed."""
    if not smollm2.installed():
        run.note("trained_model: left out without the trained model (make lm)")
        return []

    def measured():
        model, tokenizer = language_model()
        text = english_text(config.text)
        count, length = config.trained_sequences, config.trained_length
        ids = np.array(tokenizer.encode(text[: 12 * count * length])[: count * length])
        batches = ids[: len(ids) // length * length].reshape(-1, 1, length)
        each = [np.asarray(_sinks(model, jax.numpy.asarray(b))) for b in batches]
        return {"sinks": np.mean(each, axis=0)}

    found = run.cached("trained_model", measured)["sinks"]
    figures.by_position(run, found)
    return [
        PAPER.claim("K16", f"SmolLM2-135M has its sink on the first of {len(found)} tokens: Sink_1 "
                    "less the largest of the others", 0.05, float(found[0] - found[1:].max()), ">",
                    where="open-source models", because="five points are clear",
                    note=f"Sink_1 {found[0]:.3f}, the next {found[1:].max():.3f}"),
    ]  # fmt: skip
