"""Adapters for gates over channels."""

import re
from typing import Any

import jax.numpy as jnp

from jattn.mechanisms import zoo
from tests.adapters.torch_arrays import affine, matrix, norm, part, pulled, statistics


def _bottleneck(p, first, second):
    """Two layers; torch's convolutions are `[out, in, 1, 1]`."""
    params = {"down": matrix(p[f"{first}.weight"]), "up": matrix(p[f"{second}.weight"])}
    biases = {"down_bias": f"{first}.bias", "up_bias": f"{second}.bias"}
    return params | {name: p[of] for name, of in biases.items() if of in p}


def _normed(p, buffers, name):
    return {"norm": norm(p, name), "statistics": statistics(buffers, name)}


def _taps(weight):
    """A convolution along the last axis, `[out, in, 1, k] -> [k, in, out]`."""
    return jnp.transpose(weight[:, :, 0], (2, 1, 0))


def _block(name, p, buffers) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The zoo's name of a block, its options and its parameters."""
    if name == "se":
        return "squeeze_excitation", {}, _bottleneck(p, "fc1", "fc2")
    if name == "gsop":
        few = p["bn.weight"].shape[0]
        rows = p["rw_conv.weight"].reshape(few, -1, few)  # [row, number, column]
        return (
            "second_order_pooling",
            {"activation": "none"},
            {
                "reduce": affine(p, "pw_conv1"),
                "rows": rows.swapaxes(1, 2),
                "rows_bias": p["rw_conv.bias"].reshape(few, -1),
                "expand": affine(p, "pw_conv2"),
                **_normed(p, buffers, "bn"),
            },
        )
    if found := re.fullmatch(r"fca(\d+)", name):
        options = {"frequencies": (int(found[1]),)}
        return "frequency_channel_attention", options, _bottleneck(p, "fc.0", "fc.2")
    if name == "encnet":
        params = {"codewords": p["codewords"], "smoothing": p["smoothing"]}
        params |= {"output": affine(p, "fc"), **_normed(p, buffers, "bn")}
        return "context_encoding", {"words": len(p["smoothing"])}, params
    if name == "eca":
        taps = p["conv.weight"].reshape(-1)
        return "efficient_channel_attention", {"width": len(taps)}, {"taps": taps}
    if name.startswith("ge_theta"):
        form = {"ge_theta": "theta", "ge_theta_plus": "plus", "ge_theta_minus": "minus"}[name]
        if form == "minus":
            return "gather_excite", {"form": form}, {}
        gather = p["gather.0.weight"]  # [c, 1, 1, t]
        params = {"gather": matrix(gather), **_normed(p, buffers, "gather.1")}
        params |= _bottleneck(p, "mlp.0", "mlp.2") if form == "plus" else {}
        return "gather_excite", {"form": form, "extent": gather.shape[-1]}, params
    if name == "gct":
        params = {of: p[of].reshape(-1) for of in ("alpha", "beta", "gamma")}
        return "gated_channel_transform", {}, params
    if name.startswith("srm"):
        mlp = name == "srm_mlp"
        if mlp:
            own = _bottleneck(p, "style_integration.1", "style_integration.3")
            down = own["down"]  # mean and deviation of one channel, then of the next
            own["down"] = down.reshape(-1, 2, down.shape[1]).swapaxes(0, 1).reshape(down.shape)
        else:
            own = {"style": p["style_integration.weight"][:, 0]}
        return "style_recalibration", {"mlp": mlp}, own | _normed(p, buffers, "bn")
    if name == "cbam":
        params = {"taps": _taps(p["conv.weight"]), "bias": p["conv.bias"]}
        params |= _bottleneck(p, "fc.0", "fc.2")
        return "convolutional_block_attention", {"width": len(params["taps"])}, params
    if name in ("cat", "catlite"):
        shares = lambda of: jnp.concatenate([p[f"{of}_{n}"] for n in ("alpha", "beta", "gamma")])
        params = _bottleneck(p, "mlp.0", "mlp.2") | {"channel_shares": shares("c")}
        options: dict[str, Any] = {"space": name == "cat", "bias": "down_bias" in params}
        if name == "cat":
            params |= {"taps": _taps(p["conv.weight"]), "space_shares": shares("s")}
            params |= {"branches": jnp.concatenate([p["c_w"], p["s_w"]])}
            options["width"] = len(params["taps"])
        return "collaborative_attention", options, params
    raise KeyError(name)


def channel_attention(case):
    """Every block of the case, as a gate of the zoo on `[b, 1, t, c]`."""
    arrays, hyper, outputs = case.arrays, case.info["hyper"], {}
    training = "training" in case.info.get("batch_norm", "")
    last, first = (lambda x: jnp.moveaxis(x, 1, -1)), (lambda x: jnp.moveaxis(x, -1, 1))
    for block in sorted({name.split("/")[0] for name in arrays if name.endswith("/out")}):
        parts = (part(arrays, f"{block}/{of}/") for of in ("param", "buffer"))
        name, options, params = _block(block, *parts)
        if "reduction" in zoo.options(name):
            options = {"reduction": hyper["reduction"]} | options
        gate = zoo.make(name, dim=hyper["channels"], **options)
        if training and gate.train is not None:
            run = lambda x, gate=gate, params=params: first(gate.train(params, last(x))[0])
        else:
            run = lambda x, gate=gate, params=params: first(gate.apply(params, last(x)))
        y, gradients = pulled(run, arrays["x"], cotangent=arrays["cotangent"])
        outputs |= {f"{block}/out": y, f"{block}/grad_x": gradients[0]}
    return outputs


ADAPTERS = {("vision_pooling_and_cognition", "channel_attention"): channel_attention}
