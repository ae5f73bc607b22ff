"""The oracle of the softmax-like engine: NumPy in float64, its gradients worked out by hand."""

import importlib

import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from jattn.attention.blocks import Blocks

INTERPRETED = (pytest.mark.kernels, pytest.mark.slow)
SMALL = Blocks(128, 128, 128, 128, 128, 128)

SIGMOID = lambda x: 1 / (1 + np.exp(-x))
FUNCTIONS = {  # name: (f, its derivative, divided by the row sum)
    "softmax": (np.exp, np.exp, True),
    "sigmoid": (SIGMOID, lambda x: SIGMOID(x) * (1 - SIGMOID(x)), False),
    "softplus_l1": (lambda x: np.log1p(np.exp(x)), SIGMOID, True),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, True),
    "exp": (np.exp, np.exp, False),
}


def _reduce_to(x, shape):
    """Sums x over the axes that broadcast from `shape`."""
    x = x.sum(tuple(range(x.ndim - len(shape))))
    return x.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True).reshape(shape)


def _oracle(arrays, d_out, d_lse=None, *, allowed=True, normalizer="softmax", scale=None, cap=None):
    """out, lse, and gradients of sum(out * d_out) + sum(lse * d_lse) by name.

    `arrays` holds query, key, value and maybe bias, sink [h] or [b, t, h], table [h, 2r+1] (a bias
    by clipped distance) and shift. The gradient of lse counts only where there is a key.
    """
    a = {name: np.asarray(x, np.float64) for name, x in arrays.items()}
    function, slope, divide = FUNCTIONS[normalizer]
    q = a["query"].transpose(0, 2, 1, 3)
    (b, h, t, d), s = q.shape, a["key"].shape[1]
    groups = {name: np.arange(h) * a[name].shape[2] // h for name in ("key", "value")}
    k, v = (a[name].transpose(0, 2, 1, 3)[:, groups[name]] for name in ("key", "value"))
    scale = d**-0.5 if scale is None else scale
    allowed = np.broadcast_to(allowed, (b, h, t, s))

    score = scale * np.einsum("bhtd,bhsd->bhts", q, k) + a.get("bias", 0.0)
    if "table" in a:
        reach = a["table"].shape[1] // 2
        column = np.clip(np.arange(s) - np.arange(t)[:, None], -reach, reach) + reach
        score = score + a["table"][:, column]
    before = score
    if cap is not None:
        score = cap * np.tanh(before / cap)
    score = score - a.get("shift", 0.0)
    w = np.where(allowed, function(np.where(allowed, score, 0)), 0)
    total = w.sum(-1)
    if "sink" in a:
        sink = a["sink"][:, None] if a["sink"].ndim == 1 else a["sink"].transpose(0, 2, 1)
        total = total + function(sink)
    some = total > 0
    safe = np.where(some, total, 1.0) if divide else np.ones_like(total)
    with np.errstate(divide="ignore"):
        lse = np.log(total)
    out = np.einsum("bhts,bhse->bhte", w, v) / safe[..., None]

    go = np.asarray(d_out, np.float64).transpose(0, 2, 1, 3)
    grads = {}
    d_total = np.zeros((b, h, t))
    if divide:
        d_total = -(go * out).sum(-1)
        if d_lse is not None:
            d_total = d_total + np.where(some, np.asarray(d_lse, np.float64).transpose(0, 2, 1), 0)
        d_total = d_total / safe
    dw = np.einsum("bhte,bhse->bhts", go / safe[..., None], v) + d_total[..., None]
    ds = np.where(allowed, dw * slope(np.where(allowed, score, 0)), 0)
    if "shift" in a:
        grads["shift"] = _reduce_to(-ds, a["shift"].shape)
    if "sink" in a:
        d_sink = d_total * slope(np.broadcast_to(sink, total.shape))
        grads["sink"] = d_sink.sum((0, 2)) if a["sink"].ndim == 1 else d_sink.transpose(0, 2, 1)
    if cap is not None:
        ds = ds * (1 - np.tanh(before / cap) ** 2)
    if "table" in a:
        grads["table"] = np.zeros_like(a["table"])
        for head in range(h):
            np.add.at(grads["table"][head], np.broadcast_to(column, (b, t, s)), ds[:, head])
    if "bias" in a:
        grads["bias"] = _reduce_to(ds, a["bias"].shape)
    grads["query"] = scale * np.einsum("bhts,bhsd->bthd", ds, k)
    for name, per_head in (
        ("key", scale * np.einsum("bhts,bhtd->bhsd", ds, q)),
        ("value", np.einsum("bhts,bhte->bhse", w / safe[..., None], go)),
    ):
        grads[name] = np.zeros_like(a[name])
        for head, group in enumerate(groups[name]):
            grads[name][:, :, group] += per_head[:, head]
    return out.transpose(0, 2, 1, 3), lse.transpose(0, 2, 1), grads


@pytest.fixture
def oracle():
    return _oracle


@pytest.fixture(params=["reference", "blockwise", pytest.param("pallas", marks=INTERPRETED)])
def implementation(request, monkeypatch):
    """All backends; blocks of at most 64 (128), so that short sequences have many tiles."""
    # By import_module: `jattn.attention.blockwise` may be read as an attribute of the package.
    module = importlib.import_module("jattn.attention.blockwise")
    monkeypatch.setattr(module, "MAX_BLOCK", 64)
    if request.param == "pallas":
        request.getfixturevalue("interpreted")
    return SMALL if request.param == "pallas" else request.param


@pytest.fixture
def interpreted(capfd):
    """A TPU with two cores, simulated: races, reads out of bounds and unset memory show."""
    parameters = pltpu.InterpretParams(detect_races=True, num_cores_or_threads=2)
    with pltpu.force_tpu_interpret_mode(parameters):
        yield
    assert "RACE DETECTED" not in capfd.readouterr().out
