"""Edges of a circuit: what every part sends to every part behind it, by gradients (EAP-IG).

    score[u, v] = (x'_u - x_u) . 1/m sum_k d metric(x' + k/m (x - x')) / d (what v reads)

Senders u are the embedding, heads and MLPs; receivers v are queries, keys and values of heads, MLPs
and the end. All edges come from m backward passes, and the edges of a sender sum to its score as a
node (`patching.attribution_patching`), for a gradient is the sum over the ways that it takes.

Reference: arXiv 2310.10348 (EAP), 2403.17806 (EAP-IG), as used in 2509.25758.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count
from jattn.lens.edits import ResidAdd
from jattn.lens.readouts import Metric
from jattn.lens.run import run
from jattn.mechanisms.layers.norms import rms_norm
from jattn.nn import Llama

# What a sender or receiver is, with its layer and head (-1 where it has none).
Part = tuple[str, int, int]


class Edges(NamedTuple):
    """Scores of all edges.

    Attributes:
        scores: `[senders, receivers]`, 0 where the receiver is not behind the sender.
        senders: `("embedding", -1, -1)`, `("head", l, h)`, `("mlp", l, -1)`.
        receivers: `("query", l, h)`, `("key", l, g)`, `("value", l, g)`, `("mlp", l, -1)`,
            `("end", L, -1)`.
    """

    scores: Float[Array, "u v"]
    senders: list[Part]
    receivers: list[Part]


def edge_attribution(
    model: Llama,
    clean: Int[Array, "b t"],
    corrupt: Int[Array, "b t"],
    metric: Metric,
    *,
    steps: int = 5,
) -> Edges:
    """Scores of all edges of a `Llama`; positive where the corrupt text raises the metric.

    Args:
        model: a `Llama`.
        clean, corrupt: texts `[b, t]`.
        metric: of logits, differentiable.
        steps: m.
    """
    check_count("steps", steps)
    config, layers = model.config, model.arrays()["layers"]
    sites = ("resid_pre", "z", "mlp_out")
    x, y = (run(model, tokens, record=sites)[1] for tokens in (clean, corrupt))
    change = {name: y[name] - x[name] for name in sites}
    start = jnp.zeros_like(x["resid_pre"]).at[0].set(-change["resid_pre"][0])
    where = dict.fromkeys(("resid_mid", "resid_post"), change["resid_pre"])
    shapes = jax.eval_shape(lambda: run(model, clean, record=("q_pre", "k_pre", "v"))[1])
    where |= shapes
    zeros = {name: jnp.zeros(array.shape, array.dtype) for name, array in where.items()}

    to_stream = functools.partial(_to_stream, eps=config.eps)

    def slopes(share):
        moved = ResidAdd(start, share, site="resid_pre")

        def of(deltas):
            edits = [moved, *(ResidAdd(delta, site=name) for name, delta in deltas.items())]
            logits, found = run(model, corrupt, edits=edits, record=("resid_pre",))
            return metric(logits), found["resid_pre"]

        grads, stream = jax.grad(of, has_aux=True)(zeros)
        reads = {
            name: lax.map(to_stream, (layers["attention_norm"], layers[name], stream, grads[site]))
            for name, site in (("query", "q_pre"), ("key", "k_pre"), ("value", "v"))
        }
        return reads | {
            # What reaches the stream behind the MLP without it is taken off.
            "mlp": grads["resid_mid"] - grads["resid_post"],
            "end": grads["resid_post"][-1],
        }

    mean = jax.tree.map(lambda g: g.mean(0), lax.map(slopes, jnp.arange(1, steps + 1) / steps))
    width = config.width
    output = layers["output"].reshape(config.layers, config.heads, width, config.dim)
    heads = jnp.einsum("lbthd,lhdm->lhbtm", change["z"], output)
    flat = lambda array, axes: array.reshape(-1, *array.shape[axes:])
    sent = jnp.concatenate([change["resid_pre"][:1], flat(heads, 2), change["mlp_out"]])
    read = jnp.concatenate(
        [
            *(flat(mean[name], 2) for name in ("query", "key", "value")),
            mean["mlp"],
            mean["end"][None],
        ]
    )
    senders, receivers = _parts(config.layers, config.heads, config.kv_heads)
    behind = np.array([[_is_behind(u, v) for v in receivers] for u in senders])
    scores = jnp.einsum("ubtm,vbtm->uv", sent, read)
    return Edges(jnp.where(behind, scores, 0), senders, receivers)


def circuit_of_edges(edges: Edges, count: int, layers: int, heads: int) -> Bool[Array, "L h"]:
    """Heads on the `count` strongest edges that lie on a way from the embedding to the end.

    Key-value heads stand for the query heads that share them.

    Args:
        edges: of `edge_attribution`.
        count: of edges that are kept before the others are pruned.
        layers, heads: of the model.
    """
    check_count("count", count)
    size = np.abs(np.asarray(edges.scores))
    order = np.argsort(-size, axis=None)[:count]
    kept = [divmod(int(place), size.shape[1]) for place in order if size.flat[place] > 0]
    groups = sum(kind == "key" and layer == 0 for kind, layer, _ in edges.receivers)
    into: dict[Part, list[Part]] = {}
    for sender, receiver in kept:
        kind, layer, head = edges.receivers[receiver]
        shared = heads // groups
        targets: list[Part] = [(kind, layer, head)]
        if kind == "query":
            targets = [("head", layer, head)]
        elif kind in ("key", "value"):
            targets = [("head", layer, h) for h in range(head * shared, (head + 1) * shared)]
        for target in targets:
            into.setdefault(target, []).append(edges.senders[sender])
    out: dict[Part, list[Part]] = {}
    for target, sources in into.items():
        for source in sources:
            out.setdefault(source, []).append(target)
    forward = _reached(("embedding", -1, -1), out)
    backward = _reached(("end", layers, -1), into)
    mask = np.zeros((layers, heads), bool)
    for kind, layer, head in forward & backward:
        if kind == "head":
            mask[layer, head] = True
    return jnp.asarray(mask)


def _to_stream(given, *, eps: float) -> Float[Array, "g b t m"]:
    """Gradients of each head's reads with respect to the stream that it reads."""
    norm, weight, stream, grad = given
    heads, width = grad.shape[2:]
    by_head = weight.reshape(weight.shape[0], heads, width)

    def one(index):
        read = lambda x: rms_norm(x, norm, eps=eps) @ by_head[:, index]
        return jax.vjp(read, stream)[1](grad[:, :, index])[0]

    return jax.vmap(one)(jnp.arange(heads))


def _parts(layers: int, heads: int, groups: int) -> tuple[list[Part], list[Part]]:
    every = lambda kind, count: [(kind, l, n) for l in range(layers) for n in range(count)]
    mlps: list[Part] = [("mlp", layer, -1) for layer in range(layers)]
    senders = [("embedding", -1, -1), *every("head", heads), *mlps]
    read = [*every("query", heads), *every("key", groups), *every("value", groups)]
    return senders, [*read, *mlps, ("end", layers, -1)]


def _is_behind(sender: Part, receiver: Part) -> bool:
    """An MLP reads the heads of its own layer too; all else reads the layers before."""
    own = receiver[0] == "mlp" and sender[0] == "head" and sender[1] == receiver[1]
    return own or sender[1] < receiver[1]


def _reached(start: Part, ways: dict[Part, list[Part]]) -> set[Part]:
    seen, todo = {start}, [start]
    while todo:
        for part in ways.get(todo.pop(), ()):
            if part not in seen:
                seen.add(part)
                todo.append(part)
    return seen
