"""Adapters for sparse, local and long-context mechanisms."""

import jax
import jax.numpy as jnp
import numpy as np

from jattn import masks
from jattn.attention import attend
from jattn.mechanisms.channel import efficient_local_attention as ela
from jattn.mechanisms.sparse import (
    flux_attention,
    halo_attention,
    landmark_attention,
    rectified_attention,
    routing_attention,
    sparsed_attention,
    sparsifiner,
    turn_masks,
)
from jattn.mechanisms.sparse.neighborhood_attention import neighborhood_attention, tile_counts

FAMILY = "sparse_local_long_context"


def arrays_of(case):
    return {name: jnp.asarray(value) for name, value in case.arrays.items()}


def swap(x):
    """From [b, h, t, d] to [b, t, h, d], and back."""
    return jnp.swapaxes(x, 1, 2)


def neighborhood(case):
    a, options = arrays_of(case), case.info["options"]
    window = {
        "shape": options["spatial_shape"], "window": options["kernel_size"],
        "stride": options["stride"], "dilation": options["dilation"],
        "causal": options["is_causal"],
    }  # fmt: skip

    def run(q, k, v):
        out, lse = neighborhood_attention(
            q, k, v, scale=options["scale"], return_lse=True, **window
        )
        return out, lse

    (out, lse), pull = jax.vjp(run, a["q"], a["k"], a["v"])
    dq, dk, dv = pull((a["dout"], jnp.zeros_like(lse)))
    shape = window.pop("shape")
    size = window.pop("window")
    t = a["q"].shape[1]
    mask = np.asarray(masks.neighborhood(shape, size, **window).dense(t, t))[0, 0]
    return {"out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv, "mask": np.packbits(mask)}


def counts(case):
    found = {}
    for index, line in enumerate(case.info["cases"]):
        found[index] = tile_counts(
            line["spatial_shape"], line["kernel_size"], line["stride"], line["is_causal"],
            line["q_tile"], line["kv_tile"], line.get("dilation"),
        )._asdict()  # fmt: skip
    return {"cases": found}


def halo_masked(case):
    a, o = arrays_of(case), case.info["options"]
    h, d = o["heads"], o["dim_head"]

    def run(x):
        x = jnp.moveaxis(x, 1, -1)
        split = lambda y: y.reshape(*y.shape[:3], h, d)
        query = split(x @ a["p_to_q_weight"].T)
        key, value = map(split, jnp.split(x @ a["p_to_kv_weight"].T, 2, axis=-1))
        out = halo_attention.halo_attention(
            query, key, value, a["p_rel_pos_emb_rel_height"], a["p_rel_pos_emb_rel_width"],
            block=o["block"], halo=o["halo"], relative_scale=d**-0.5,
        )  # fmt: skip
        out = out.reshape(*out.shape[:3], h * d) @ a["p_to_out_weight"].T + a["p_to_out_bias"]
        return jnp.moveaxis(out, -1, 1)

    y, pull = jax.vjp(run, a["x"])
    return {"y": y, "dx": pull(a["dout"])[0]}


def halo_zeros(case):
    a, o = arrays_of(case), case.info["options"]
    h, d, stride = o["heads"], o["dim_head"], o.get("stride", 1)

    def run(x):
        x = jnp.moveaxis(x, 1, -1)
        flat = lambda w: w[:, :, 0, 0].T
        query = x[:, ::stride, ::stride] @ flat(a["p_q_weight"])
        query = query.reshape(*query.shape[:3], h, d)
        both = x @ flat(a["p_kv_weight"])
        both = both.reshape(*both.shape[:3], h, -1)
        out = halo_attention.halo_attention(
            query, both[..., :d], both[..., d:], a["p_pos_embed_height_rel"],
            a["p_pos_embed_width_rel"], block=o["block"], halo=o["halo"], stride=stride,
            outside="zeros",
        )  # fmt: skip
        return jnp.moveaxis(out.reshape(*out.shape[:3], -1), -1, 1)

    y, pull = jax.vjp(run, a["x"])
    return {"y": y, "dx": pull(a["dout"])[0]}


def landmark(case):
    a = arrays_of(case)
    marks = a["is_landmark"]

    def run(q, k, v):
        return swap(landmark_attention.landmark_attention(swap(q), swap(k), swap(v), marks))

    out, pull = jax.vjp(run, a["q"], a["k"], a["v"])
    dq, dk, dv = pull(a["dout"])
    probs = landmark_attention.landmark_weights(swap(a["q"]), swap(a["k"]), marks)
    return {"out": out, "probs": probs, "dq": dq, "dk": dk, "dv": dv}


def routing(case):
    a, o = arrays_of(case), case.info["options"]
    q, k, v = (swap(a[name]) for name in ("q", "k", "v"))
    shared = o["shared_qk"]
    keys = routing_attention.unit(q) if shared else k
    out = routing_attention.routing_attention(
        q, k, v, a["means"], window=o["window"], causal=o["causal"], shared=shared
    )
    of_queries, of_keys = routing_attention.members(
        q, keys, a["means"], window=o["window"], shared=shared
    )
    routed = q if shared else jnp.concatenate([q, k], axis=1)
    nearest = routing_attention.cluster_scores(routed, a["means"]).argmax(2)
    loss = o["commitment"] * routing_attention.commitment_loss(a["means"], routed)
    found = {
        "out": swap(out), "aux_loss": loss, "buckets": nearest,
        "means_after_one_lloyd_step": routing_attention.updated_centroids(
            a["means"], routed, decay=0.0
        ),
    }  # fmt: skip
    # Members come in no order that matters.
    for name, index in (("q_idx", of_queries), ("k_idx", of_keys)):
        same = np.sort(np.asarray(index), -1) == np.sort(case.arrays[name], -1)
        found[name] = np.where(same.all(-1, keepdims=True), case.arrays[name], -1)
    return found


def flux(case):
    a, o = arrays_of(case), case.info["options"]
    names = {
        "w1": "cls_feat_extractor_0", "w2": "cls_feat_extractor_2",
        "v1": "cls_router_head_agnostic_0", "v2": "cls_router_head_agnostic_2",
        "v3": "cls_router_head_agnostic_4",
    }  # fmt: skip
    biases = {"w1": "b1", "w2": "b2", "v1": "c1", "v2": "c2", "v3": "c3"}
    params = {ours: a[f"p_{theirs}_weight"].T for ours, theirs in names.items()}
    params |= {biases[ours]: a[f"p_{theirs}_bias"] for ours, theirs in names.items()}
    span = jnp.stack([a["range_ids"][:, 2], a["range_ids"][:, 5]], axis=1)
    pooled = flux_attention.pool_queries(a["q_pre_rope"], span, o["pool_size"])
    logits = flux_attention.route(params, pooled)
    found = {"pooled": pooled, "logits": logits}
    temperature = jnp.exp(a["p_log_temp"]) if "p_log_temp" in a else 1.0
    if "soft" in a:
        soft = jax.nn.softmax(logits / temperature) if o["use_softmax"] else jax.nn.sigmoid(
            logits / temperature
        )  # fmt: skip
        found["soft"] = soft.reshape(a["soft"].shape)
    return found


def rectified(case):
    a, o = arrays_of(case), case.info["options"]
    block, text = o["block"], o.get("n_text", 0)
    if "q_visual" in a:
        cut = a["q_visual"].shape[2]
        query, keys = swap(a["q_visual"]), swap(a["k_all"])
        chosen = rectified_attention.select(
            query, keys[:, :cut], block=block, mass=o["prob_threshold"], least=o["top_k"],
            text_key=keys[:, cut:] if text else None,
        )  # fmt: skip
        alone = ~rectified_attention.compensated_blocks(query, keys[:, :cut], block)
        return {
            "block_mask": chosen.critical, "realloc_probs": chosen.probabilities,
            "not_compensated_mask": alone,
        }  # fmt: skip
    query, key, value = (swap(a[name]) for name in ("q", "k", "v"))
    neighbor = a.get("neighbor")
    neighbor = neighbor if o.get("has_neighbor") else None
    options: dict = dict(
        block=block, mass=o["prob_threshold"], least=o["top_k"], neighbors=neighbor,
        first_frame=o.get("first_frame_blocks", 0),
    )  # fmt: skip
    chosen = rectified_attention.select(query, key, **options)
    plain = attend(query, key, value, mask=masks.blocks(chosen.critical, block, block))
    out = rectified_attention.rectified_attention(query, key, value, **options)
    return {
        "critical_block_mask": chosen.critical, "pooled_probs": chosen.probabilities,
        "not_compensated_mask": ~rectified_attention.compensated_blocks(query, key, block),
        "sparse_out": swap(plain), "out": swap(out),
    }  # fmt: skip


def sparsed(case):
    a, o = arrays_of(case), case.info["options"]
    query, key, value = (swap(a[name]) for name in ("q", "k", "v"))
    chosen = sparsed_attention.choose_blocks(
        query, key, block=o["block"], share=o["select"], generated=o["new_generation"],
        scale=o["selection_scale"],
    )  # fmt: skip
    out = sparsed_attention.sparsed_attention(query, key, value, chosen, block=o["block"])
    first = sparsed_attention.first_generated_block(query.shape[1], o["new_generation"], o["block"])
    return {"block_mask": chosen, "out": swap(out), "first_gen_block": first}


def sparse_vision(case):
    a, o = arrays_of(case), case.info["options"]
    h = o["heads"]
    b, t, m = a["x"].shape
    maps = (a["x"] @ a["p_qkv_weight"].T + a.get("p_qkv_bias", 0.0)).reshape(b, t, 3, h, m // h)
    query, key, value = maps[:, :, 0], maps[:, :, 1], maps[:, :, 2]
    name = lambda part: a[f"p_mask_predictor_{part}"]
    params = {
        "query": name("proj_c_q_weight").T, "query_bias": name("proj_c_q_bias"),
        "key": name("proj_c_k_weight").T, "key_bias": name("proj_c_k_bias"),
        "reduce": name("proj_n"),
        "expand": name("proj_back_n") if "p_mask_predictor_proj_back_n" in a else name("proj_n"),
    }  # fmt: skip
    found = sparsifiner.predict(
        params, query, key, keep=o["keep_rate"], coefficients=o.get("coef_topk"),
        coefficient_threshold=o.get("coef_threshold", 0.05),
        basis_threshold=o["basis_threshold"],
        by="count" if o["score"] == "topk" else "threshold", threshold=o["score_threshold"],
    )  # fmt: skip
    nothing = jnp.zeros((b, t, h, 1))
    _, weights = attend(query, key, nothing, mask=found.mask, return_weights=True)
    out = sparsifiner.sparsifiner_attention(query, key, value, found.mask).reshape(b, t, m)
    return {
        "basis_coef": found.kept, "approx_attn": found.approximate,
        "attn_mask": found.mask, "masked_attn": weights,
        "out": out @ a["p_proj_weight"].T + a["p_proj_bias"],
    }  # fmt: skip


def turns(case):
    a = arrays_of(case)
    real = a["attention_mask"].astype(bool)
    t = real.shape[1]
    single = turn_masks.prefix_mask(a["context_len"], real)
    several = turn_masks.turn_mask(a["loss_mask"].astype(bool), real)
    dense = lambda mask: mask.fit(len(real), 1, t, t).tile(0, 0, t, t)[:, 0]
    return {"allowed_single": dense(single), "allowed_multiturn": dense(several)}


def local_gate(case):
    a, o = arrays_of(case), case.info["options"]
    # A convolution's weights are [out, in, width].
    params = {
        "taps": jnp.moveaxis(a["conv_w"], (2, 1, 0), (0, 1, 2)),
        "scale": a["gn_w"], "shift": a["gn_b"],
    }  # fmt: skip
    last = lambda x: jnp.moveaxis(x, 1, -1)

    def run(x):
        factors = ela.efficient_local_attention(params, last(x), norm_groups=o["gn_groups"])
        return x * jnp.moveaxis(factors, -1, 1)

    y, pull = jax.vjp(run, a["x"])
    along = lambda axis: jnp.moveaxis(
        ela.line_factors(params, last(a["x"]).mean(axis), norm_groups=o["gn_groups"]), -1, 1
    )
    return {"y": y, "dx": pull(a["dout"])[0], "att_h": along(2), "att_w": along(1)}


ADAPTERS = {
    (FAMILY, "efficient_local_attention"): local_gate,
    (FAMILY, "flux_router"): flux,
    (FAMILY, "halo_attention"): halo_masked,
    (FAMILY, "halo_attention_zero_padded"): halo_zeros,
    (FAMILY, "landmark_attention"): landmark,
    (FAMILY, "neighborhood_attention"): neighborhood,
    (FAMILY, "neighborhood_tile_counts"): counts,
    (FAMILY, "rectified_sparse_attention"): rectified,
    (FAMILY, "routing_attention"): routing,
    (FAMILY, "sparsed_selection"): sparsed,
    (FAMILY, "sparsifiner_attention"): sparse_vision,
    (FAMILY, "turn_aware_masks"): turns,
}
