"""What the page shows, as plain numbers and strings: maps, sinks, scores, lens, next tokens."""

import base64
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import LanguageModel, program
from jattn import lens
from jattn.lens.heads import head_entropy
from jattn.lens.readouts import head_scores, logit_lens, token_losses
from jattn.lens.sinks import importance
from jattn.nn import Llama

NEXT = 10  # next tokens that are shown
PERIOD = 24  # random tokens that are repeated, to find heads that copy


def contents(
    language: LanguageModel, prompt: str, edits: Sequence[lens.Edit], words: Sequence[str]
) -> dict[str, Any]:
    """All that the page holds, to be written as JSON.

    Args:
        language: a model and its tokenizer.
        prompt: of two tokens at least.
        edits: a second run has them.
        words: the edits in words.
    """
    model, tokenizer = language
    tokens = np.asarray(tokenizer.encode(prompt), np.int32)
    runs = [_run(language, tokens, ())]
    if edits:
        runs.append(_run(language, tokens, tuple(edits)))
    return {
        "prompt": prompt,
        "tokens": tokenizer.texts(tokens),
        "layers": model.config.layers,
        "heads": model.config.heads,
        "edits": list(words),
        "scores": _copying(model),
        "runs": runs,
    }


def _run(language: LanguageModel, tokens: np.ndarray, edits: Sequence[lens.Edit]) -> dict[str, Any]:
    found = jax.device_get(_measured(language.model, jnp.asarray(tokens)[None], edits))
    probs = found.pop("probs")
    row, column = np.tril_indices(len(tokens))
    texts = language.tokenizer.texts
    best, likely = found.pop("best"), found.pop("likely")
    packed = np.rint(255 * probs[..., row, column]).astype(np.uint8)
    return {
        # Row by row the part of each map below its diagonal, 255 for a weight of 1.
        "maps": base64.b64encode(packed.tobytes()).decode(),
        # Ids, for some tokens look alike.
        "next": list(
            zip(likely.tolist(), texts(likely), _round(found.pop("chances")), strict=True)
        ),
        "lens": [texts(layer) for layer in best],
        **{name: _round(value) for name, value in found.items()},
    }


@program
def _measured(model: Llama, tokens, edits):
    logits, found = lens.run(model, tokens, edits=edits, record=("probs", "resid_post"))
    probs = found["probs"]
    chances = jax.nn.softmax(logits[0, -1])
    # A layer at a time: all of a vocabulary's logits at once would be a gigabyte.
    best, chance = jax.lax.map(lambda x: _best(logit_lens(model, x[0])), found["resid_post"])
    top = jax.lax.top_k(chances, min(NEXT, model.config.vocab_size))
    return {
        "probs": probs[:, 0],
        "sinks": importance(probs)[:, 0].mean(1),
        "first": importance(probs)[:, 0, :, 0],
        "previous": jnp.diagonal(probs, -1, axis1=-2, axis2=-1).mean((1, -1)),
        "entropy": head_entropy(probs),
        "best": best,
        "chance": chance,
        "likely": top[1],
        "chances": top[0],
        "losses": token_losses(logits, tokens)[0],
    }


def _best(logits):
    return logits.argmax(-1), jax.nn.softmax(logits).max(-1)


def _copying(model: Llama) -> dict[str, Any]:
    """Scores of heads on random tokens that come twice."""
    drawn = np.random.default_rng(0).integers(0, model.config.vocab_size, PERIOD)
    tokens = jnp.asarray([0, *drawn, *drawn])[None]
    found = jax.device_get(_scores(model, tokens))
    return {name: _round(value) for name, value in found.items() if name != "previous"}


@program
def _scores(model: Llama, tokens):
    return head_scores(lens.run(model, tokens, record=("probs",))[1]["probs"], PERIOD)


def _round(value: Any) -> Any:
    return np.round(np.asarray(value, np.float64), 4).tolist()
