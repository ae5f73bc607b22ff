"""Adapters for methods that change or read attention maps, and for adversarial attention."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jattn
from jattn.lens.methods.attention_calibration import attention_calibration
from jattn.lens.methods.attention_perturbation import (
    attention_perturbation,
    batch_difference_perturbation,
)
from jattn.lens.methods.contrastive_attention import (
    bounding_box,
    contrastive_attention,
    select_regions,
)
from jattn.lens.methods.gaze_shift import gaze_saliency, gaze_shift_amplification
from jattn.lens.methods.visual_redistribution import qualifying_rows, visual_redistribution
from jattn.lens.readouts import massiveness
from jattn.lens.taps import aggregate


def calibration(case):
    info, probs = case.info, jnp.asarray(case.arrays["probs"])
    heads = jnp.zeros(probs.shape[-3], bool).at[jnp.array(info["heads"])].set(True)
    options: Any = dict(keep=info["beta"], threshold=info["threshold"], heads=heads)
    return {"out": attention_calibration(probs, **options)}


def redistribution(case):
    """phi is stored of a stream that is rounded to float16 in the file, so it is not compared."""
    info = case.info
    probs, hidden = (jnp.asarray(case.arrays[n], jnp.float32) for n in ("probs", "hidden"))
    first, end = info["span"]
    index, dims = jnp.arange(probs.shape[-1]), jnp.array(info["dims"])
    span = (index >= first) & (index < end)
    limits = dict(rho=info["rho"], min_mass=info["min_mass"])
    rows = qualifying_rows(probs, massiveness(hidden, dims) >= info["tau"], span, **limits)
    options = dict(tau=info["tau"], keep=info["keep"], **limits)
    out = visual_redistribution(probs, hidden, span, dims, **options)
    return {"out": out, "qualifying": np.argwhere(np.asarray(rows))}


def _places(span):
    first, last, *rest = span
    return jnp.arange(first, last + 1 if rest[:1] == ["inclusive"] else last)


def gaze_shift(case):
    info, arrays = case.info, {name: jnp.asarray(x) for name, x in case.arrays.items()}
    _, probs = jattn.attend(
        arrays["q"], arrays["k"], arrays["v"], mask=jattn.masks.causal(),
        return_weights=True, implementation="reference",
    )  # fmt: skip
    saliency = gaze_saliency(arrays["shifts"], info["alpha"])
    spans = _places(info["span"]), _places(info["query_span"])
    after = gaze_shift_amplification(probs, saliency, *spans)
    return {
        "saliency": saliency,
        "probs_before": probs,
        "probs_after": after,
        "out": aggregate(after, arrays["v"]),
    }


def contrast(case):
    layers = np.array(case.info["layers"])
    of = lambda name: jnp.asarray(case.arrays[name])[:, layers]
    fused = contrastive_attention(of("query_maps"), of("general_maps"))
    grid = case.arrays["fused"].shape
    mask = select_regions(fused.reshape(grid))
    return {"fused": fused.reshape(grid), "mask": mask, "bbox": bounding_box(mask)}


def perturbed(case, batch_differences):
    arrays = {name: jnp.asarray(x) for name, x in case.arrays.items()}
    hidden, label = arrays["hidden"], arrays["label"]
    scores = jnp.tanh(hidden @ arrays["W1"].T + arrays["b1"]) @ arrays["w2"][0]

    def loss(scores):
        context = jnp.einsum("bt,bth->bh", jax.nn.softmax(scores, -1), hidden)
        logit = context @ arrays["out_weight"]
        return (jax.nn.softplus(logit) - label * logit).sum()

    perturb = batch_difference_perturbation if batch_differences else attention_perturbation
    moved = scores + perturb(loss, scores, eps=case.info["xi"])
    return {
        "scores": scores,
        "attention": jax.nn.softmax(scores, -1),
        "loss": loss(scores),
        "grad": jax.grad(loss)(scores),
        "attention_perturbed": jax.nn.softmax(moved, -1),
        "loss_perturbed": loss(moved),
    }


FAMILY = "interventions_and_analysis"
ADAPTERS = {
    (FAMILY, "attention_at"): functools.partial(perturbed, batch_differences=False),
    (FAMILY, "attention_calibration"): calibration,
    (FAMILY, "attention_iat"): functools.partial(perturbed, batch_differences=True),
    (FAMILY, "contrastive_attention"): contrast,
    (FAMILY, "gaze_shift_amplification"): gaze_shift,
    (FAMILY, "visual_attention_redistribution"): redistribution,
}
