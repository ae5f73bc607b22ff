"""Adapters for vision: dual attention, MAXIM, NiNformer, bags, brain encoders, pointers, probes."""

import jax
import jax.numpy as jnp

from jattn.lens import object_binding
from jattn.losses import attention_maps
from jattn.mechanisms import zoo
from jattn.mechanisms.channel import multi_axis_gmlp, ninformer, squeeze_excitation
from jattn.mechanisms.cross import cross_gating, emotion_bank, supervised_attention, theme_attention
from jattn.mechanisms.pointer import object_pointer
from jattn.mechanisms.pooling import acmil, brain_encoder, in_context_weights
from tests.adapters.torch_arrays import affine, norm, packed, part, pulled, without_rounding


def dual_attention(case):
    """Attention over positions and over channels, with the residual, on `[b, c, h, w]`."""
    arrays, outputs = case.arrays, {}
    channels, sides = arrays["x"].shape[1], arrays["x"].shape[2:]
    tokens = lambda x: jnp.moveaxis(x.reshape(*x.shape[:2], -1), 1, 2)
    image = lambda y: jnp.moveaxis(y, 2, 1).reshape(-1, channels, *sides)
    for name, made in (("pam", "position_attention"), ("cam", "channel_self_attention")):
        if f"{name}/out" not in arrays:
            continue
        p = part(arrays, f"{name}/param/")
        few = len(p["query_conv.weight"]) if name == "pam" else None
        options = {} if few is None else {"reduction": channels // few}
        mixer = zoo.make(made, dim=channels, heads=1, **options)

        def run(p, x, name=name, mixer=mixer):
            params = {"gamma": p["gamma"].reshape(())}
            if name == "pam":
                params |= {of: affine(p, f"{of}_conv") for of in ("query", "key", "value")}
            return x + image(mixer.apply(params, tokens(x)))

        y, pull = jax.vjp(run, p, jnp.asarray(arrays["x"]))
        of_params, of_x = pull(jnp.asarray(arrays["cotangent"]))
        outputs |= {f"{name}/out": y, f"{name}/grad_x": of_x}
        outputs |= {f"{name}/grad_param/{of}": gradient for of, gradient in of_params.items()}
    return without_rounding(outputs, arrays)


def _dense(p, name):
    """A layer of Flax, as `affine` takes it; convolutions of one place are as well."""
    kernel = p[f"{name}/kernel"]
    bias = {"bias": p[f"{name}/bias"]} if f"{name}/bias" in p else {}
    return {"weight": kernel.reshape(kernel.shape[-2:])} | bias


def _flax_norm(p, name):
    return {"scale": p[f"{name}/scale"], "shift": p[f"{name}/bias"]}


def _gmlp(p, kind):
    unit = f"{kind}GatingUnit"
    return {
        "norm": _flax_norm(p, "LayerNorm"),
        "inner": _dense(p, "in_project"),
        "gate_norm": _flax_norm(p, f"{unit}/intermediate_layernorm"),
        "mix": _dense(p, f"{unit}/Dense_0"),
        "outer": _dense(p, "out_project"),
    }


def maxim(case):
    """The multi-axis block, cross gating, channel attention and supervised attention."""
    arrays, hyper = {k: jnp.asarray(v) for k, v in case.arrays.items()}, case.info["hyper"]
    sizes = {"block": tuple(hyper["block_size"]), "grid": tuple(hyper["grid_size"])}
    x, outputs = arrays["x"], {}
    if p := part(arrays, "multi_axis_gmlp/param/"):
        params = {
            "norm": _flax_norm(p, "LayerNorm_in"),
            "inner": _dense(p, "in_project"),
            "grid": _gmlp(part(p, "GridGmlpLayer/"), "Grid"),
            "block": _gmlp(part(p, "BlockGmlpLayer/"), "Block"),
            "outer": _dense(p, "out_project"),
        }
        added = multi_axis_gmlp.multi_axis_gmlp(params, x, **sizes)
        outputs["multi_axis_gmlp/out"] = x + added
    if p := part(arrays, "cross_gating/param/"):
        params = {}
        for stream, enter in (("x", "Conv_0"), ("y", "Conv_1")):
            own = part(p, f"SplitHeadMultiAxisGating_{stream}/")
            params[stream] = {
                "enter": _dense(p, enter),
                "norm": _flax_norm(p, f"LayerNorm_{stream}"),
                "inner": _dense(p, f"in_project_{stream}"),
                "outer": _dense(p, f"out_project_{stream}"),
                "gate": {
                    "norm": _flax_norm(own, "LayerNorm_in"),
                    "inner": _dense(own, "in_project"),
                    "grid": _dense(own, "Dense_0"),
                    "block": _dense(own, "Dense_1"),
                    "outer": _dense(own, "out_project"),
                },
            }
        both = cross_gating.cross_gating(params, x, arrays["y"], **sizes)
        outputs |= {f"cross_gating/out{i}": stream for i, stream in enumerate(both)}
    if p := part(arrays, "ca_layer/param/"):
        layers = {"down": _dense(p, "Conv_0"), "up": _dense(p, "Conv_1")}
        params = {name: layer["weight"] for name, layer in layers.items()}
        params |= {f"{of}_bias": layer["bias"] for of, layer in layers.items() if "bias" in layer}
        outputs["ca_layer/out"] = x * squeeze_excitation.squeeze_excitation(params, x)
    if p := part(arrays, "sam/param/"):
        names = {"features": "Conv_0", "image": "Conv_1", "gate": "Conv_2"}
        params = {
            of: {"weight": p[f"{name}/kernel"]}
            | ({"bias": p[f"{name}/bias"]} if f"{name}/bias" in p else {})
            for of, name in names.items()
        }
        # The authors add the input only where the restored image has three channels.
        residual = arrays["image"] if params["image"]["weight"].shape[-1] == 3 else None
        both = supervised_attention.supervised_attention(params, x, residual)
        outputs |= {f"sam/out{i}": found for i, found in enumerate(both)}
    return {name: value for name, value in outputs.items() if name in arrays}


def ninformer_block(case):
    """A block with one norm in two places, and the gating unit on raw tokens."""
    p, x = part(case.arrays, "param/"), jnp.asarray(case.arrays["x"])
    net = lambda name: {"inner": affine(p, f"{name}.net.0"), "outer": affine(p, f"{name}.net.3")}
    unit = {
        "value": affine(p, "mgu.proj"),
        "mixer": {
            "token_norm": norm(p, "mgu.Mixer.token_mix.0"),
            "tokens": net("mgu.Mixer.token_mix.2"),
            "channel_norm": norm(p, "mgu.Mixer.channel_mix.0"),
            "channels": net("mgu.Mixer.channel_mix.1"),
        },
    }
    params = {"unit": unit, "norm": norm(p, "norm"), "mlp": net("ffn")}
    run = lambda x: ninformer.ninformer_block(params, x)
    y, gradients = pulled(run, x, cotangent=case.arrays["cotangent"])
    return {"out": y, "grad_x": gradients[0], "mgu_out": ninformer.ninformer(unit, x)}


def _bag(p, x, label, hidden):
    """Everything that ACMIL says of one bag, and the sum of its losses."""
    params = {
        "project": p["dimreduction.fc1.weight"].T,
        "value": affine(p, "attention.attention_V.0"),
        "gate": affine(p, "attention.attention_U.0"),
        "score": affine(p, "attention.attention_weights"),
    }
    z = jax.nn.relu(x @ params["project"])
    scores = acmil.gated_attention_scores(params, z[None])
    mask = None if hidden is None else hidden(scores)
    features = acmil.acmil(params, x[None], hidden=mask)[0]
    shown = scores if mask is None else jnp.where(mask, -1e9, scores)
    branches = len(features)
    of_branch = jnp.stack(
        [affine_of(p, f"classifier.{i}.fc", features[i]) for i in range(branches)]
    )
    slide = affine_of(p, "Slide_classifier.fc", features.mean(0, keepdims=True))
    entropy = lambda logits: -jax.nn.log_softmax(logits)[..., label[0]]
    losses = {
        "loss_branch": entropy(of_branch).mean(),
        "loss_slide": entropy(slide).mean(),
        "loss_diversity": attention_maps.diversity(jax.nn.softmax(shown[0].T)),
    }
    found = {"sub_logits": of_branch, "slide_logits": slide, "attn_logits": shown[0].T, **losses}
    # One branch has no other to differ from, and no loss of its own.
    total = losses["loss_slide"] + losses["loss_diversity"]
    return total + (losses["loss_branch"] if branches > 1 else 0.0), found


def affine_of(p, name, x):
    """`x weight^T + bias` of a torch layer."""
    layer = affine(p, name)
    return x @ layer["weight"] + layer["bias"]


def bags(case):
    """ACMIL in evaluation and in training, with uniforms given, and gradients."""
    arrays, hyper, outputs = case.arrays, case.info["hyper"], {}
    p, x = part(arrays, "param/"), jnp.asarray(arrays["x"])
    for mode in ("eval", "train"):
        if f"{mode}/sub_logits" not in arrays:
            continue
        hidden = None
        if mode == "train":
            uniforms = jnp.asarray(arrays["train/uniforms"])[None]
            share = hyper["mask_prob"]
            hidden = lambda s, uniforms=uniforms, share=share: acmil.top_k_mask(s, uniforms, share)
        run = lambda p, hidden=hidden: _bag(p, x, arrays["label"], hidden)
        gradients, found = jax.grad(run, has_aux=True)(p)
        outputs |= {f"{mode}/{name}": value for name, value in found.items()}
        outputs |= {f"{mode}/grad/{name}": value for name, value in gradients.items()}
    return without_rounding(outputs, arrays)


def brain(case):
    """Areas' tokens, where they look, and what they say of all vertices."""
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    p, hyper = part(arrays, "param/"), case.info["hyper"]
    layer, flat = part(p, "layers.0."), lambda x: jnp.moveaxis(x.reshape(*x.shape[:2], -1), 1, 2)
    params = packed(layer, "multihead_attn") | {
        "queries": arrays["queries"],
        "query_shift": layer["norm1.bias"],
        "mlp": {"inner": affine(layer, "linear1"), "outer": affine(layer, "linear2")},
        "mlp_norm": norm(layer, "norm3"),
        "norm": norm(p, "norm"),
    }
    x, places = flat(arrays["features"]), flat(arrays["pos"])
    tokens = brain_encoder.brain_encoder(params, x, heads=hyper["heads"], positions=places)
    half = arrays["queries"].shape[0] // 2
    outputs = {"tokens": tokens}
    outputs["attn_weights"] = brain_encoder.routing(
        params, x, heads=hyper["heads"], positions=places
    )
    for side, own in (("lh", tokens[:, :half]), ("rh", tokens[:, half:])):
        weight, bias = arrays[f"W_{side}"].T, arrays[f"b_{side}"]
        outputs[side] = brain_encoder.vertex_predictions(own, weight, bias)
    return {name: value for name, value in outputs.items() if name in arrays}


def _residual(p, name):
    block = part(p, f"{name}.")
    params = {"norm": norm(block, "block.0"), "inner": affine(block, "block.3")}
    params |= {"inner_norm": norm(block, "block.4"), "outer": affine(block, "block.7")}
    return params | ({"bypass": affine(block, "bypass")} if "bypass.weight" in block else {})


def voxel(case):
    """Weights of a voxel from context, predictions, and the last block's mean map."""
    arrays = {name: jnp.asarray(array) for name, array in case.arrays.items()}
    p, heads, blocks = part(arrays, "param/"), case.info["hyper"]["heads"], []
    while any(name.startswith(f"blocks.{len(blocks)}.") for name in p):
        block = part(p, f"blocks.{len(blocks)}.")
        up = affine(block, "ffn.linear1")
        half = lambda i, up=up: {name: jnp.split(w, 2, axis=-1)[i] for name, w in up.items()}
        blocks.append(
            packed(block, "attn")
            | {
                "norm": norm(block, "layer_norm_1"),
                "mlp_norm": norm(block, "layer_norm_2"),
                "gate": half(0),
                "up": half(1),
                "down": affine(block, "ffn.linear2"),
            }
        )
    params = {"early": _residual(p, "early"), "head": _residual(p, "head"), "blocks": blocks}
    params["registers"] = arrays["registers"][0]
    pairs = jnp.concatenate([arrays["ctx_img"], arrays["ctx_resp"][..., None]], axis=-1)
    weights = in_context_weights.in_context_weights(params, pairs, heads=heads)[:, 0]
    outputs = {
        "weights": weights,
        "pred": in_context_weights.linear_predictions(weights, arrays["query_img"]),
        "attn_mean_heads_last": in_context_weights.last_map(params, pairs, heads=heads).mean(1),
    }
    return {name: value for name, value in outputs.items() if name in arrays}


def probes(case):
    """Three probes, row by row and of all pairs."""
    arrays, outputs = {k: jnp.asarray(v) for k, v in case.arrays.items()}, {}
    x, y = arrays["x"], arrays["y"]
    for name, layer, probe in (
        ("linear", "linear", object_binding.linear_probe),
        ("diag", "diag", object_binding.diagonal_probe),
        ("quadratic", "W", object_binding.quadratic_probe),
    ):
        weight = arrays[f"{name}/param/{layer}.weight"]
        weight = weight if name == "quadratic" else weight[0]
        params = weight, arrays[f"{name}/param/{layer}.bias"][0]
        rows = probe(x, y, *params)
        shape = arrays[f"{name}/rowwise"].shape if f"{name}/rowwise" in arrays else rows.shape
        outputs[f"{name}/rowwise"] = rows.reshape(shape)
        outputs[f"{name}/pairwise_xx"] = object_binding.pairwise(probe, x, x, *params)
        outputs[f"{name}/pairwise_xy"] = object_binding.pairwise(probe, x, y, *params)
    return {name: value for name, value in outputs.items() if name in arrays}


def oat(case):
    """Logits of a pointer, of each head and together, lengths first."""
    arrays, heads = {k: jnp.asarray(v) for k, v in case.arrays.items()}, case.info["hyper"]["heads"]
    params = {"readout": {"weight": arrays["readout_w"].T, "bias": arrays["readout_b"]}}
    for of, name in (("query", "decode_fc"), ("key", "encode_fc")):
        maps = [affine(arrays, f"head/{head}.{name}") for head in range(heads)]
        params[of] = {
            leaf: jnp.concatenate([one[leaf] for one in maps], axis=-1) for leaf in maps[0]
        }
    given = [jnp.swapaxes(arrays[name], 0, 1) for name in ("decoder", "encoder")]
    outputs = {
        "per_head_logits": object_pointer.head_logits(params, *given, heads=heads, stop=True),
        "logits": object_pointer.object_pointer(params, *given, heads=heads, stop=True),
    }
    return {k: jnp.swapaxes(v, 0, 1) for k, v in outputs.items() if k in arrays}


def fastcomposer(case):
    """The localisation loss over layers, its gradients, and masks resized."""
    arrays, hyper = {k: jnp.asarray(v) for k, v in case.arrays.items()}, case.info["hyper"]
    sizes, batch = hyper["sizes"], hyper["batch"]
    tokens, valid = arrays["object_token_idx"], arrays["object_token_mask"] > 0
    masks = [attention_maps.resized_masks(arrays["object_segmaps"], side) for side in sizes]

    def loss(probs):
        return attention_maps.mean_over_layers(
            [
                attention_maps.localization(
                    maps.reshape(batch, -1, *maps.shape[1:]),
                    mask,
                    tokens,
                    valid,
                    normalize=case.info.get("normalize", False),
                )
                for maps, mask in zip(probs, masks, strict=True)
            ]
        )

    probs = [arrays[f"layer{index}/probs"] for index in range(len(sizes))]
    value, gradients = jax.value_and_grad(loss)(probs)
    outputs = {"loss": value}
    for index, (side, mask, gradient) in enumerate(zip(sizes, masks, gradients, strict=True)):
        outputs[f"layer{index}/grad_probs"] = gradient
        outputs[f"layer{index}/segmaps_resized"] = mask.reshape(*mask.shape[:-1], side, side)
    return {name: value for name, value in outputs.items() if name in arrays}


def anagram(case):
    """The anti-segregation loss of views, and its gradient."""
    maps = jnp.asarray(case.arrays["maps"])
    flat = lambda maps: attention_maps.anti_segregation(maps.reshape(len(maps), -1))
    loss, gradient = jax.value_and_grad(flat)(maps)
    return {"loss": loss, "grad_maps": gradient}


def theme(case):
    """A decoder layer, parallel and exclusive, lengths first."""
    arrays, outputs = {k: jnp.asarray(v) for k, v in case.arrays.items()}, {}
    p, rows = part(arrays, "param/"), lambda x: jnp.swapaxes(x, 0, 1)
    labels, table = rows(arrays["theme_label"]), arrays["pos_table"]
    length = labels.shape[1]
    params = {
        "self": packed(p, "self_attn"),
        "cross": packed(p, "multihead_attn"),
        "norm": norm(p, "norm1"),
        "mlp": {"inner": affine(p, "linear1"), "outer": affine(p, "linear2")},
        "mlp_norm": norm(p, "norm3"),
    }
    aligned = rows(arrays["cross_pos_enc"]) if "cross_pos_enc" in arrays else table[labels]
    for mode in ("parallel", "exclusive"):
        if f"{mode}/out" not in arrays:
            continue

        def run(x, mode=mode):
            return rows(
                theme_attention.theme_layer(
                    params,
                    rows(x),
                    rows(arrays["memory"]),
                    labels,
                    heads=case.info["hyper"]["heads"],
                    exclusive=mode == "exclusive",
                    positions=table[:length][None],
                    theme_positions=aligned,
                )
            )

        y, gradients = pulled(run, arrays["tgt"], cotangent=arrays["cotangent"])
        outputs |= {f"{mode}/out": y, f"{mode}/grad_tgt": gradients[0]}
    return outputs


def dice(case):
    """Prompts quantised with their gradients, and attention to the bank with its map."""
    arrays, heads = {k: jnp.asarray(v) for k, v in case.arrays.items()}, case.info["hyper"]["heads"]

    def loss(z, bank):
        project = {"weight": arrays["fc_w"].T, "bias": arrays["fc_b"]}
        found = emotion_bank.quantized_prompts({"project": project, "bank": bank}, z)
        return (arrays["cotangent"] * found.vectors).sum() + found.loss, found

    pull = jax.grad(loss, (0, 1), has_aux=True)
    (of_z, of_bank), found = pull(arrays["z"], arrays["codebook"])
    p = part(arrays, "attn_param/")
    params = {of: affine(p, f"fc_{of[0]}") for of in ("query", "key", "value")}
    y, weights = emotion_bank.bank_attention(params, arrays["x"], arrays["y"], heads=heads)
    outputs = {
        "quantized": found.vectors,
        "indices": found.indices.ravel(),
        "vq_loss": found.loss,
        "grad_z": of_z,
        "grad_codebook": of_bank,
        "attn_out": y,
        "attn_weights": weights,
    }
    return {name: value for name, value in outputs.items() if name in arrays}


FAMILY = "vision_pooling_and_cognition"
ADAPTERS = {
    (FAMILY, "acmil"): bags,
    (FAMILY, "anagram_anti_segregation"): anagram,
    (FAMILY, "brain_encoder"): brain,
    (FAMILY, "braincorl"): voxel,
    (FAMILY, "dice_emotion_bank"): dice,
    (FAMILY, "dual_attention"): dual_attention,
    (FAMILY, "fastcomposer"): fastcomposer,
    (FAMILY, "maxim"): maxim,
    (FAMILY, "ninformer_block"): ninformer_block,
    (FAMILY, "oat_pointer"): oat,
    (FAMILY, "same_object_probes"): probes,
    (FAMILY, "theme_gated_parallel"): theme,
}
