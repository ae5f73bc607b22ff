"""The layer of Miras' memories, which differ in loss, retention, network and learner."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jattn.checks import check_choice, check_count, check_flag
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.frames.recurrent_mixer import gated_heads
from jattn.mechanisms.layers.heads import project_output, project_qkv, qkvo_init, split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import rms_norm, unit_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.memory.miras import Rates, miras_scan, miras_step, start
from jattn.mechanisms.memory.miras_rule import Rule, state_of
from jattn.mechanisms.memory.networks import network, network_init
from jattn.mechanisms.mixer import Mixer, Parts

PARAMETERS = ("gate", "memory", "rates_bias", "rates_down", "rates_up")
# Where the gates begin: 0.9975 of the past is kept, and of gradients before 0.27 with momentum.
ALPHA_BIAS, MOMENTUM_BIAS = 6.0, -1.0
MAX_DEEP_ETA, MAX_LOG_ETA = 0.04, 16.0
PER = ("head", "channel")


class MemoryShape(NamedTuple):
    """What a memory of Miras is besides its rule; see `miras_mixers.make_miras`."""

    depth: int = 2
    expansion: int = 4
    residual_norm: bool = True
    chunk: int = 16
    rank: int = 32
    retain: str = "head"
    momentum: bool = False

    def check(self) -> None:
        """Checks all of it.

        Raises:
            ValueError: one is not what it should be.
        """
        for name in ("chunk", "rank", "depth", "expansion"):
            check_count(name, getattr(self, name))
        for name in ("residual_norm", "momentum"):
            check_flag(name, getattr(self, name))
        check_choice("retain", self.retain, PER)


def eta_of(rule: Rule, depth: int) -> tuple[float, float]:
    """The largest step size, and the bias that it begins with.

    With a norm inside the network, gradients are large and weights small. Weights that are a
    softmax move by factors: a step of 1 changes them by a few percent.
    """
    if rule.retention == "kl":
        return (MAX_LOG_ETA if depth == 1 else 1.0), 0.0
    if depth == 1:
        return 1.0, -2.0
    return MAX_DEEP_ETA, (-4.0 if rule.loss == "lp" else 0.0)


def miras_layer(name: str, rule: Rule, shape: MemoryShape, *, dim: int, heads: int) -> Mixer:
    """Projections, the memory of a rule, a norm of each head, and an output gate.

    alpha is one number a head or one a channel, eta and delta are one a channel, and momentum is
    one a head: `sigmoid`, and for delta `softplus`, of `x W_down W_up + b`. A network of several
    leaves has a factor of the step size for each, `2 sigmoid`. A deep memory's values are divided
    by their root mean square: what its norm puts out is of that size.

    Args:
        name: the mechanism's name, for messages.
        rule: its loss and retention.
        shape: its network, learner and rates.
        dim: model dimension m.
        heads: heads h, a divisor of m, each with a memory.

    Raises:
        ValueError: a size that does not fit.
    """
    check_heads(dim, heads)
    shape.check()
    size, deep = dim // heads, shape.depth > 1
    make_network = lambda key: network_init(
        key,
        size,
        depth=shape.depth,
        expansion=shape.expansion,
        residual_norm=shape.residual_norm and deep,
    )
    leaves = shape.depth + (shape.residual_norm and deep)
    largest, eta_bias = eta_of(rule, shape.depth)
    # Rates of a token, how many of each and where they begin; only those that are used.
    counts = {"alpha": dim if shape.retain == "channel" else heads, "eta": dim}
    biases = {"alpha": ALPHA_BIAS, "eta": eta_bias}
    if rule.loss in ("huber", "huber_norm", "robust"):
        counts["delta"], biases["delta"] = dim, (3.0 if deep else 0.0)
    if shape.momentum:
        counts["momentum"], biases["momentum"] = heads, MOMENTUM_BIAS
    if deep:
        counts["scale"], biases["scale"] = leaves * heads, 0.0
    borders = [sum(list(counts.values())[: n + 1]) for n in range(len(counts) - 1)]

    def init(key):
        keys = jax.random.split(key, 5)
        return qkvo_init(keys[0], dim, heads) | {
            "gate": linear_init(keys[1], dim, dim),
            "rates_down": linear_init(keys[2], dim, shape.rank),
            "rates_up": linear_init(keys[3], shape.rank, sum(counts.values())),
            "rates_bias": jnp.concatenate(
                [jnp.full(n, biases[rate]) for rate, n in counts.items()]
            ),
            "memory": jax.vmap(make_network)(jax.random.split(keys[4], heads)),
        }

    def rates_of(params, x, real) -> Rates:
        logits = linear(linear(x, params["rates_down"]), params["rates_up"])
        logits = logits + params["rates_bias"].astype(x.dtype)
        found: dict[str, Any] = dict(zip(counts, jnp.split(logits, borders, -1), strict=True))
        alpha, eta = jax.nn.sigmoid(found["alpha"]), largest * jax.nn.sigmoid(found["eta"])
        if real is not None:  # what is not there writes nothing and forgets nothing
            alpha = jnp.where(real[..., None], alpha, 1)
            eta = jnp.where(real[..., None], eta, 0)
        eta = split_heads(eta, heads)
        delta, momentum, scale = jnp.ones_like(eta), None, None
        if "delta" in found:
            delta = split_heads(jax.nn.softplus(found["delta"]), heads)
        if shape.momentum:
            momentum = jax.nn.sigmoid(found["momentum"])
            # Nor does it go on moving the memory.
            momentum = momentum if real is None else jnp.where(real[..., None], momentum, 0)
        if deep:
            factors = jnp.split(2 * jax.nn.sigmoid(found["scale"]), leaves, -1)
            scale = jax.tree.unflatten(jax.tree.structure(params["memory"]), factors)
        alpha = split_heads(alpha, heads) if shape.retain == "channel" else alpha
        return Rates(alpha, eta, delta, momentum, scale)

    def inputs(params, maps, x, real=None):
        names = ("query", "key", "value")
        query, key, value = (split_heads(jax.nn.silu(maps[n]), heads) for n in names)
        value = rms_norm(value) if deep else value
        return (unit_norm(query), unit_norm(key), value), rates_of(params, x, real)

    def apply(parts, params, given):
        maps = parts.project(params, given.x, given.x)
        (query, key, value), rates = inputs(params, maps, given.x, given.real)
        out, _ = miras_scan(
            query, key, value, params0=params["memory"], **rates._asdict(), apply_fn=network,
            rule=rule, chunk=shape.chunk,
        )  # fmt: skip
        return parts.output(params, gated_heads(params, given.x, out), given.x)

    def init_state(parts, params, batch_size, max_length, dtype):
        of_all = lambda x: jnp.broadcast_to(x, (batch_size, *x.shape))
        first = jax.tree.map(of_all, state_of(rule, params["memory"]))
        return jax.vmap(jax.vmap(functools.partial(start, momentum=shape.momentum)))(first)

    def step(parts, params, x, state):
        x = x[:, None]
        arrays, rates = inputs(params, parts.project(params, x, x), x)
        one = functools.partial(miras_step, apply_fn=network, rule=rule, chunk=shape.chunk)
        dtype = jax.tree.leaves(state.state)[0].dtype
        token = jax.tree.map(lambda array: array[:, 0].astype(dtype), (*arrays, *rates))
        state, out = jax.vmap(jax.vmap(one))(state, *token)
        mixed = gated_heads(params, x, out[:, None].astype(x.dtype))
        return parts.output(params, mixed, x)[:, 0], state

    return framed_parts(
        name,
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        init_state=init_state,
        step=step,
        takes="row",
        causal=True,
    )
