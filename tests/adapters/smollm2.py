"""Adapter for reference numbers of SmolLM2-135M: whatever a case holds that the lens measures.

These files name no family: a case is told by what is in it. Numbers of texts stand under
`prompts`; those of other analyses use texts that lie in the same case or are the same in all.
"""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jattn import lens
from jattn.lens import readouts
from jattn.lens.methods import rhythm
from jattn.lens.methods.attention_calibration import calibration_edit
from jattn.lens.methods.attention_influence import attention_influence, uniform_heads
from jattn.lens.methods.zero_tuning import zero_tuning
from jattn.lens.sinks import importance
from jattn.lens.steering import steering_vectors
from jattn.pretrained.smollm2 import smollm2_tokenizer
from tests.pretrained_model import smollm2

L, H = 30, 9


def _loss(tokens, *edits):
    """Mean loss of a text under edits."""
    logits = lens.run(smollm2(), tokens, edits=edits)[0]
    return float(readouts.token_losses(logits, tokens).mean())


def _numbered(rows):
    """A list as a mapping by place, as the checker walks."""
    return dict(enumerate(rows))


def _some_layers(text):
    """A mask `[L, 1]` of the layers that the name of an intervention says."""
    found = re.search(r"layers(\d+)-(\d+)", text)
    first, last = (int(found[1]), int(found[2])) if found else (0, L - 1)
    index = jnp.arange(L)
    return ((index >= first) & (index <= last))[:, None]


def _intervention(name, tokens):
    """The loss under an intervention that its name describes."""
    length, on = tokens.shape[1], _some_layers(name)
    number = lambda key: float(re.search(rf"{key}_(\d+(\.\d+)?)", name)[1])  # type: ignore
    if name.startswith("zerotuning"):
        gamma = jnp.where(jnp.broadcast_to(on, (L, H)), number("gamma"), 1.0)
        return _loss(tokens, zero_tuning(gamma, length))
    if name.startswith("act"):
        options: Any = dict(keep=number("beta"), threshold=number("thr"), protect="first_token")
        return _loss(tokens, calibration_edit(jnp.broadcast_to(on, (L, H)), **options))
    if name.startswith("mask_key0"):
        row, key = jnp.arange(length)[:, None], jnp.arange(length)
        hidden = on[:, None, None, :, None] & ((key == 0) & (row > 0))
        return _loss(tokens, lens.LogitBias(jnp.where(hidden, -jnp.inf, 0.0)))
    assert name == "zero_attention_of_layer", name
    one = jnp.eye(L)
    silent = lambda layer: readouts.token_losses(
        lens.run(smollm2(), tokens, edits=[lens.ablate(jnp.broadcast_to(layer[:, None], (L, H)))])[
            0
        ],
        tokens,
    ).mean()
    return np.asarray(jax.lax.map(silent, one))


def _ablation(case, tokens, others):
    """Losses where heads are silent: of the second copy, and of a story."""
    half = (tokens.shape[1] - 1) // 2

    def losses(heads):
        edit = lens.ablate(lens.heads_of([tuple(head) for head in heads], L, H))
        logits = lens.run(smollm2(), tokens, edits=[edit])[0]
        mine = readouts.token_losses(logits, tokens)[0, half:].mean()
        return float(mine), _loss(others, edit) if others is not None else None

    found: dict[str, Any] = {}
    second, story = losses(case["heads"])
    found["second_half_loss"] = second
    if others is not None:
        found["story_loss"] = story
    drawn = [losses(one["heads"]) for one in case.get("random", ())]
    found["random"] = _numbered(
        {"loss": a} | ({"story_loss": b} if others is not None else {}) for a, b in drawn
    )
    return found


def _saliency(tokens, case, target):
    loss = lambda logits: -jax.nn.log_softmax(logits[0, -1])[target]
    probs, grad = readouts.grad_times_attention(smollm2(), tokens, loss)
    return {
        layer: {
            "sal_mean_heads_lastrow": jnp.abs(probs * grad)[int(layer), 0].mean(0)[-1],
            "grad_norm": jnp.linalg.norm(grad[int(layer), 0]),
        }
        for layer in case
    }


def _prompt(case, others):
    """All that the lens has to say of one text, as far as the case has it."""
    tokens = jnp.asarray(case["token_ids"])[None]
    logits, found = lens.run(smollm2(), tokens, record=("probs", "resid_post"))
    probs, resid = found["probs"], found["resid_post"][:, 0]
    losses = readouts.token_losses(logits, tokens)[0]
    alpha, norms = importance(probs)[:, 0], jnp.linalg.norm(resid, axis=-1)
    last, share = logits[0, -1], jax.nn.softmax(logits[0, -1])
    order = jnp.argsort(-last)
    at_twelve = resid[12, 0]
    out: dict[str, Any] = {
        "mean_loss": losses.mean(),
        "first8_losses": losses[:8],
        "top5": _numbered({"id": i, "prob": share[i], "logit": last[i]} for i in order[:5]),
        "argmax_each_position": logits[0].argmax(-1),
        "alpha0_mean_heads_by_layer": alpha[..., 0].mean(1),
        "alpha0_by_layer_head": alpha[..., 0],
        "sink_rate_eps03": readouts.sink_rate(probs),
        "resid_norm_tok0_by_layer": norms[:, 0],
        # of an even number of tokens the lower one of the two in the middle
        "resid_norm_median_by_layer": jnp.sort(norms, axis=1)[:, (norms.shape[1] - 1) // 2],
    }
    dims = case.get("resid_top_dims_tok0_layer12", ())
    found_dims = jax.lax.top_k(jnp.abs(at_twelve), max(len(dims), 1))[1]
    out["resid_top_dims_tok0_layer12"] = jnp.stack([found_dims, at_twelve[found_dims]], 1)
    if case.get("text"):
        out["token_ids"] = smollm2_tokenizer().encode(case["text"])
    out["last_logits"] = {i: last[int(i)] for i in case.get("last_logits", ())}
    secondary = case.get("secondary_sinks_head_mean_alpha", ())
    mean = alpha.mean(1)
    for number, one in enumerate(secondary):
        place = one["layer"], one["pos"]
        values = {"alpha": mean[place], "resid_norm_after_layer": norms[place]}
        out.setdefault("secondary_sinks_head_mean_alpha", {})[number] = values
    if "head_scores" in case:
        period = (tokens.shape[1] - 1) // 2
        scores = readouts.head_scores(probs, period)
        rows = {
            name: [
                [l, h, scores[name][l, h]]
                for l, h in _best(scores[name], len(case["head_scores"][name]))
            ]
            for name in scores
            if name in case["head_scores"]
        }
        second = {
            "loss_first_half": losses[:period].mean(),
            "loss_second_half": losses[period:].mean(),
        }
        out["head_scores"] = rows | {n: x for n, x in second.items() if n in case["head_scores"]}
    if "ablation_top10_induction" in case:
        out["ablation_top10_induction"] = _ablation(
            case["ablation_top10_induction"], tokens, others
        )
    if "interventions" in case:
        out["interventions"] = {name: _intervention(name, tokens) for name in case["interventions"]}
    for name in case:
        if name.startswith("grad_x_attn_target"):
            target = int(name.removeprefix("grad_x_attn_target"))
            out[name] = _saliency(tokens, case[name], target)
    return {name: value for name, value in out.items() if name in case}


def _best(scores, count):
    order = np.argsort(-np.asarray(scores), axis=None)[:count]
    return [divmod(int(i), H) for i in order]


def prompts(case):
    given = case.info["prompts"]
    story = jnp.asarray(given["story"]["token_ids"])[None] if "story" in given else None
    return {"prompts": {name: _prompt(one, story) for name, one in given.items()}}


def _rhythm(given):
    """WAAD and FAI of the story."""
    tokens = jnp.asarray(_texts()["story"]["token_ids"])[None]
    probs = lens.run(smollm2(), tokens, record=("probs",))[1]["probs"][:, 0]
    distance = rhythm.mean_distance(probs)
    near, far = rhythm.local_and_global(distance)
    mean = lambda heads: (probs * heads[..., None, None]).sum((0, 1)) / heads.sum()
    rows = lambda heads: [[l, h, distance[l, h]] for l, h in heads]
    count = lambda name: len(given.get(name, ()))
    waad, fai = rhythm.waad(mean(near)), rhythm.fai(mean(far))
    return {
        "mean_distance_top": rows(_best(distance, count("mean_distance_top"))),
        "mean_distance_bottom": rows(_best(-distance, count("mean_distance_bottom"))),
        "local_heads": jnp.flatnonzero(near.reshape(-1)),
        "global_heads": jnp.flatnonzero(far.reshape(-1)),
        "waad": waad,
        "fai": fai,
    }


def _texts():
    """Texts that cases without texts of their own mean by name."""
    path = Path(__file__).parents[1] / "data" / "golden" / "smollm2" / "reference.json"
    return json.loads(path.read_text())["prompts"]


def _steering(given):
    """Vectors out of texts that are given, and what they do to a pair of words."""
    layer, model = given["layer"], smollm2()
    vector = steering_vectors(model, given["positive"], given["negative"])[layer]
    only = jnp.zeros((L, 1)).at[layer].set(1.0) * vector
    tokens = jnp.asarray(given["test_ids"])[None]

    def difference(strength):
        last = lens.run(model, tokens, edits=[lens.ResidAdd(only, float(strength))])[0][0, -1]
        return {"diff": last[given["good"]] - last[given["bad"]]}

    result = {strength: difference(strength) for strength in given["result"]}
    return {"vec_norm": jnp.linalg.norm(vector), "result": result}


def _influence(case):
    """Losses with heads zeroed and made uniform, of texts beside and of prompts with needles."""
    given, model = case.info["attention_influence"], smollm2()
    texts = _texts()

    # The mean is over all prompts, and some files list a part of them.
    stated = re.search(r"(\d+) prompts listed", case.info["definitions"]["retrieval"])
    prompts = case.info["retrieval_prompts"]
    whole = stated is not None and int(stated[1]) == len(prompts)

    def needle_loss(edits):
        losses = []
        for prompt in prompts:
            tokens, first = jnp.asarray(prompt["token_ids"])[None], prompt["prompt_len"] - 1
            logits = lens.run(model, tokens, edits=edits)[0]
            losses.append(readouts.token_losses(logits, tokens)[0, first:].mean())
        return jnp.stack(losses).mean()

    edits: dict[str, Any] = {"base": ()}
    for name, key in (("retrieval", "heads"), ("random", "random")):
        heads = lens.heads_of([tuple(head) for head in given[key]], L, H)
        edits[f"zero_{name}"] = (lens.ablate(heads),)
        edits[f"uniform_{name}"] = (uniform_heads(heads),)
    losses = {}
    for name in given["losses"]:
        wanted = [text for text in given["losses"][name] if text in texts]
        of = {
            text: _loss(jnp.asarray(texts[text]["token_ids"])[None], *edits[name])
            for text in wanted
        }
        losses[name] = of | ({"needle_answer": needle_loss(edits[name])} if whole else {})
    score = lambda name: {
        text: attention_influence(
            jnp.asarray(losses[name][text]), jnp.asarray(losses["base"][text])
        )
        for text in losses["base"]
    }
    return {
        "losses": losses,
        "score": score("uniform_retrieval"),
        "score_zero": score("zero_retrieval"),
    }


def analyses(case):
    """Rhythm, steering and the influence of heads, as far as the case has them."""
    out: dict[str, Any] = {}
    if "story_rhythm" in case.info:
        found = _rhythm(case.info["story_rhythm"])
        out["story_rhythm"] = {n: x for n, x in found.items() if n in case.info["story_rhythm"]}
    if "steering" in case.info:
        out["steering"] = _steering(case.info["steering"])
    if "attention_influence" in case.info:
        out["attention_influence"] = _influence(case)
    return out


def last_logits(case):
    """Logits at the end of the text that the case's description quotes."""
    text = re.search(r'"(.+)"', case.info["what"])[1]  # type: ignore
    tokens = jnp.asarray(smollm2_tokenizer().encode(text))[None]
    return {"last_logits": smollm2()(tokens)[0, -1]}


def internals(case):
    arrays = case.arrays
    tokens = jnp.asarray(arrays["token_ids"])[None]
    sites = ("probs", "resid_post", "z", "q", "k", "v")
    found = {n: x[:, 0] for n, x in lens.run(smollm2(), tokens, record=sites)[1].items()}
    layers = jnp.asarray(arrays["resid_layers"])
    out = {"probs": found["probs"], "resid": found["resid_post"][layers]}
    return out | {f"{name}_layer0": found[name][0] for name in "zqkv"}


def kind_of(case):
    """The adapter of a case of the model, by what it holds; None where it is none of these."""
    if "family" in case.info:
        return None
    for name, adapter in (
        ("prompts", prompts),
        ("story_rhythm", analyses),
        ("steering", analyses),
        ("attention_influence", analyses),
        ("last_logits", last_logits),
        ("resid_layers", internals),
    ):
        if name in case.info or name in case.arrays:
            return adapter
    return None
