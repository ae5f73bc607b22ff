"""Adapters for poolers of tokens."""

import re

import jax
import jax.numpy as jnp

from jattn.mechanisms.pooling import (
    aim_pooling,
    cbam_pooling,
    class_attention,
    clip_pooling,
    coca_pooling,
    cross_attention_pooling,
    dolg_pooling,
    efficient_probing,
    multiple_instance_pooling,
    simpool,
)
from tests.adapters.torch_arrays import affine, matrix, norm, part, pulled, statistics


def _layers(p):
    """Parameters of the scorer, `attention_predictor.0`, `.2`, ..."""
    found = {re.fullmatch(r"attention_predictor\.(\d+)\.weight", name) for name in p}
    numbers = sorted(int(match[1]) for match in found if match)
    return [affine(p, f"attention_predictor.{number}") for number in numbers]


def _split(p, name, parts):
    """The parts of a packed affine map."""
    weights = jnp.split(p[f"{name}.weight"], len(parts))
    biases = jnp.split(p[f"{name}.bias"], len(parts))
    pairs = zip(parts, weights, biases, strict=True)
    return {of: {"weight": weight.T, "bias": bias} for of, weight, bias in pairs}


def _mlp(p, name):
    return {"inner": affine(p, f"{name}.fc1"), "outer": affine(p, f"{name}.fc2")}


def _ep(p, buffers, hyper):
    params = {"queries": p["cls_token"][0], "value": matrix(p["v.weight"])}
    return lambda x: efficient_probing.efficient_probing(params, x)


def _abmilp(activation):
    def made(p, buffers, hyper):
        params = {"layers": _layers(p)}
        run = multiple_instance_pooling.multiple_instance_pooling
        return lambda x: run(params, x, activation=activation)

    return made


def _simpool(p, buffers, hyper):
    maps = {of: matrix(p[f"w{of[0]}.weight"]) for of in ("query", "key") if f"w{of[0]}.weight" in p}
    params = {"norm": norm(p, "norm_patches")} | maps
    heads = hyper["simpool_heads" if maps else "esimpool_heads"]
    return lambda x: simpool.simpool(params, x, heads=heads)


def _aim(p, buffers, hyper):
    params = {of: matrix(p[f"{of[0]}.weight"]) for of in ("key", "value")}
    params |= {"queries": p["cls_token"][0], "statistics": statistics(buffers, "bn")}
    return lambda x: aim_pooling.aim_pooling(params, x, heads=hyper["heads"])


def _cae(p, buffers, hyper):
    parts = ("query", "key", "value")
    params = {of: affine(p, f"cross_attn.{of[0]}") for of in parts}
    params |= {f"{of}_norm": norm(p, f"norm1_{of[0]}") for of in parts}
    params |= {"output": affine(p, "cross_attn.proj"), "queries": p["query_token"][0]}
    run = cross_attention_pooling.cross_attention_pooling
    return lambda x: run(params, x, heads=hyper["heads"], form="cae", eps=1e-5)


def _siglip(p, buffers, hyper):
    params = {"queries": p["latent"][0], "query": affine(p, "q"), "mlp": _mlp(p, "mlp")}
    params |= _split(p, "kv", ("key", "value")) | {"output": affine(p, "proj")}
    run = cross_attention_pooling.cross_attention_pooling
    return lambda x: run(params, x, heads=hyper["heads"], form="siglip")


def _jepa(p, buffers, hyper):
    block = part(p, "cross_attention_block.")
    params = {"queries": p["query_tokens"][0], "query": affine(block, "xattn.q")}
    params |= _split(block, "xattn.kv", ("key", "value"))
    params |= {"output": affine(block, "xattn.proj"), "mlp": _mlp(block, "mlp")}
    params |= {"norm": norm(block, "norm1"), "mlp_norm": norm(block, "norm2")}
    run = cross_attention_pooling.cross_attention_pooling
    return lambda x: run(params, x, heads=hyper["heads"], form="vjepa", eps=1e-5)


def _clip(p, buffers, hyper):
    params = _split(p, "qkv", ("query", "key", "value")) | {"output": affine(p, "proj")}
    params |= {"positions": p["pos_embed"], "norm": norm(p, "norm")}
    return lambda x: clip_pooling.clip_pooling(params, x, heads=hyper["heads"])


def _coca(p, buffers, hyper):
    key, value = jnp.split(p["to_kv.weight"], 2)
    params = {"queries": p["img_queries"], "query": matrix(p["to_q.weight"])}
    params |= {"key": key.T, "value": value.T, "output": matrix(p["to_out.weight"])}
    params |= {"norm": {"scale": p["norm.gamma"], "shift": buffers["norm.beta"]}}
    heads = params["query"].shape[1] // hyper.get("coca_dim_head", 64)
    return lambda x: coca_pooling.coca_pooling(params, x, heads=heads)[:, :1]


def _cait(p, buffers, hyper):
    blocks, number = [], 0
    while any(name.startswith(f"blocks_token_only.{number}.") for name in p):
        block = part(p, f"blocks_token_only.{number}.")
        names = {"query": "q", "key": "k", "value": "v", "output": "proj"}
        blocks.append({of: affine(block, f"attn.{name}") for of, name in names.items()})
        blocks[-1] |= {"norm": norm(block, "norm1"), "mlp_norm": norm(block, "norm2")}
        blocks[-1] |= {"scale": block["gamma_1"], "mlp_scale": block["gamma_2"]}
        blocks[-1] |= {"mlp": _mlp(block, "mlp")}
        number += 1
    params = {"token": p["cls_token"][0, 0], "blocks": blocks, "norm": norm(p, "norm")}
    return lambda x: class_attention.class_attention(
        params, x, heads=hyper["heads"], final_eps=1e-5
    )


def _dolg(p, buffers, hyper):
    params = {"project": affine(p, "conv1"), "score": affine(p, "conv2")}
    params |= {"norm": norm(p, "bn"), "statistics": statistics(buffers, "bn")}
    return lambda x: dolg_pooling.dolg_pooling(params, x)


def _cbam(p, buffers, hyper):
    params = {"down": matrix(p["channel.fc1.weight"]), "up": matrix(p["channel.fc2.weight"])}
    params |= {"taps": jnp.transpose(p["spatial.conv.conv.weight"], (2, 3, 1, 0))}
    params |= {"norm": norm(p, "spatial.conv.bn")}
    params |= {"statistics": statistics(buffers, "spatial.conv.bn")}
    grid = (hyper["side"], hyper["tokens"] // hyper["side"])
    return lambda x: cbam_pooling.cbam_pooling(params, x, grid=grid)


POOLERS = {
    "ep": _ep,
    "simpool": _simpool,
    "esimpool": _simpool,
    "aim": _aim,
    "cae": _cae,
    "cbam_pool": _cbam,
    "siglip": _siglip,
    "clip": _clip,
    "coca": _coca,
    "dolg": _dolg,
    "jepa": _jepa,
    "cait": _cait,
}


def _pooler(name):
    if name.startswith("abmilp_"):
        return _abmilp("relu" if "relu" in name else "tanh")
    return POOLERS[name] if name in POOLERS else POOLERS[name.split("_")[0]]


def attentive_pooling(case):
    """Each pooler of the case, and its gradient for the tokens."""
    arrays, outputs = case.arrays, {}
    for name in case.info["pools"]:
        p, buffers = (part(arrays, f"{name}/{of}/") for of in ("param", "buffer"))
        run = _pooler(name)(p, buffers, case.info["hyper"])
        first = jax.jit(lambda x, run=run: run(x)[:, 0])
        y, gradients = pulled(first, arrays["x"], cotangent=arrays[f"{name}/cotangent"])
        outputs |= {f"{name}/out": y, f"{name}/grad_x": gradients[0]}
    return outputs


ADAPTERS = {("vision_pooling_and_cognition", "attentive_pooling"): attentive_pooling}
